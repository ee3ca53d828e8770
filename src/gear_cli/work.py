"""``gear work``: a worker that runs a shell command or a Python function."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gear_sync import Worker, WorkerJob
from gearproto import JobFailed

from .options import USAGE, Servers, addresses, fail

__all__ = ["work"]


def work(
    function: str,
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    target: Annotated[str | None, Parameter(name=["--target", "-t"])] = None,
    server: Servers = None,
    client_id: str | None = None,
    count: int | None = None,
    timeout: float | None = None,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative=())] = False,
) -> int:
    """Run jobs of a function until SIGTERM or SIGINT; the job in hand is finished first.

    Give a command, which reads the workload on its standard input and writes the result to its standard output; if it
    ends with another status than 0 the job has failed. Or give a Python function with --target.

    Args:
        function: Name of the function.
        command: The command to run for each job, and its arguments.
        target: A Python function as module:name; it takes a gear_sync.WorkerJob and returns bytes, or yields them.
        server: A job server as host or host:port; may be given several times. Default: 127.0.0.1:4730.
        client_id: The name that administrators see.
        count: End after so many jobs.
        timeout: Seconds after which the server gives a job to another worker.
        verbose: Log every connection and failed job to stderr.
    """
    if bool(command) == bool(target):
        fail("give either a command or --target", USAGE)
    if count is not None and count < 1:
        fail(f"--count is {count}, least is 1", USAGE)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="gear: %(message)s")
    handler = _shell_handler(command) if target is None else _load(target)
    with Worker(addresses(server), client_id=client_id) as worker:
        left = count

        def counted(job: WorkerJob) -> Any:
            nonlocal left
            if left is not None:
                left -= 1
                if left <= 0:
                    worker.stop()
            return handler(job)

        worker.register(function, counted, timeout=timeout)
        worker.run()
    return 0


def _shell_handler(command: tuple[str, ...]) -> Callable[[WorkerJob], bytes]:
    def run(job: WorkerJob) -> bytes:
        try:
            done = subprocess.run(command, input=job.workload, stdout=subprocess.PIPE, check=False)
        except OSError as error:
            raise JobFailed(f"{command[0]}: {error.strerror or error}") from error
        if done.returncode:
            raise JobFailed(f"{command[0]} ended with status {done.returncode}")
        return done.stdout

    return run


def _load(target: str) -> Callable[[WorkerJob], Any]:
    """Import a function named as ``module:name``."""
    module, colon, name = target.partition(":")
    if not module or not colon or not name:
        fail(f"{target!r} is no target: it has to read module:name", USAGE)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        fail(f"cannot load {target}: {error}", USAGE)
    if not callable(found):
        fail(f"{target} is no function", USAGE)
    handler: Callable[[WorkerJob], Any] = found
    return handler
