"""``gear work``: a worker that runs a shell command, or a Python function."""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from gearproto import LocalProtocolError
from gearproto.worker import described

from .exits import Exit, Failure, UsageError
from .options import (
    Servers,
    TlsCa,
    TlsCertificate,
    TlsFlag,
    TlsKey,
    Verbose,
    client_tls,
    log_to_stderr,
    seconds,
    server_addresses,
)
from .subprocesses import Commands, Unusable, check_command

if TYPE_CHECKING:
    from gear_sync import Worker, WorkerJob

__all__ = ["work"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LONGEST: Final = 2_000_000.0  # seconds, 23 days: gearmand counts milliseconds in 32 bits
_LAST_CHANCE: Final = 1.0  # seconds that a worker has to end by itself after the second signal

Handler = Callable[["WorkerJob"], Any]


def work(
    function: str,
    /,
    *command: str,
    target: str | None = None,
    client_id: str | None = None,
    count: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    threads: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=1000), show_default=False)] = 0,
    timeout: Annotated[float | None, seconds(_LONGEST)] = None,
    server: Servers = (),
    tls: TlsFlag = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    verbose: Verbose = 0,
) -> int:
    """Run jobs until SIGTERM or SIGINT; running jobs are finished first.

    A second signal ends the worker and its commands at once; the servers give their jobs to other workers.

    A command reads the workload from stdin, and writes the result to stdout. Any exit code except 0 fails the job. A
    single word is run by the shell, so it can be a whole pipeline in quotes; several words are run as they are. Put --
    before a command that has options. The environment variables GEAR_HANDLE, GEAR_FUNCTION and GEAR_UNIQUE describe the
    job.

    A Python function gets the job (gear_sync.WorkerJob), and returns the result as bytes, or yields it in pieces.

    If a server is lost, the worker tries to connect again, with growing pauses.

    Exit codes: 0 stopped, or --count jobs done; 1 the command cannot be run (it exits with 126 or 127 before it has
    exited with 0 once; its job goes to another worker); 2 wrong usage; 130 ended by a second signal.

    Args:
        function: Name of the function, as clients call it.
        command: The command that runs the jobs.
        target: The Python function that runs the jobs instead, as module:function. Modules in the current directory can
            be used.
        client_id: The name that administrators see.
        count: Number of jobs after which to exit, including failed jobs.
        threads: Number of jobs to run at once, up to 1000; one job at a time by default.
        timeout: Seconds that a job may take. After that, a command is killed and its job ends with an exception. The
            same holds for a Python function with --threads. A second later, the servers give a job that has not ended
            to another worker. No limit by default.
        server: see Servers.
        tls: see TlsFlag.
        tls_ca: see TlsCa.
        tls_certificate: see TlsCertificate.
        tls_key: see TlsKey.
        verbose: see Verbose.
    """
    from gear_sync.worker import Worker

    if bool(command) == (target is not None):
        raise UsageError("give either a command or --target.")
    addresses = server_addresses(server)
    commands = Commands()
    unusable: list[Unusable] = []
    handler = _load(target) if target is not None else _command(command, commands)
    log_to_stderr(verbose, tracebacks=target is not None)
    name = None if client_id is None else os.fsencode(client_id)
    try:
        files = client_tls(tls, tls_ca, tls_certificate, tls_key)
        worker = Worker(addresses, client_id=name, threads=threads, tls=files)
    except (LocalProtocolError, ValueError) as error:  # a name that is too long, a file that cannot be used
        raise UsageError(f"{error}.") from error
    try:
        with worker, _ending_at_the_second_signal(worker, commands):
            handler = _giving_back(handler, worker, unusable)
            if count is not None:
                handler = _limited(handler, count, worker)
            worker.register(os.fsencode(function), handler, timeout=timeout)
            worker.run()
    except LocalProtocolError as error:  # a name that is too long, say
        raise UsageError(f"{error}.") from error
    finally:
        commands.kill()  # those of threads that are still running
    if unusable:
        raise Failure(f"{unusable[0]}; its job goes back to the server.")
    return Exit.DONE


@contextmanager
def _ending_at_the_second_signal(worker: Worker, commands: Commands) -> Iterator[None]:
    """Make sure that the process ends soon after a second signal, whatever a function does.

    The worker raises KeyboardInterrupt then. But a function can keep it from being raised or from having an effect, and
    can leave threads that Python waits for when it exits.
    """
    wakes, waker = socket.socketpair()
    waker.setblocking(False)

    def watch() -> None:
        signals = 0
        with wakes:
            while signals < 2:
                numbers = wakes.recv(64)
                if not numbers:
                    return
                signals += sum(number in _SIGNALS for number in numbers)
        worker.abort()  # before the commands: jobs whose commands are killed here must not be reported as failed
        time.sleep(_LAST_CHANCE)
        commands.kill()
        os._exit(Exit.INTERRUPTED)

    watching = threading.Thread(target=watch, name="second signal", daemon=True)
    watching.start()
    # Python calls its handlers in the main thread, which may be busy; this descriptor is written to at once.
    before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    # The worker also calls the handler that was set before, and restores it in processes that a function forks.
    terminates = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):
            waker.send(bytes(_SIGNALS))  # it may have been the first, of a worker that was to stop anyway
        if set(threading.enumerate()) - {threading.main_thread(), watching}:
            # Python would wait for some of these threads when it exits, or abort because of locks that others hold.
            commands.kill()
            with suppress(OSError):
                print(end="", flush=True)
            os._exit(Exit.INTERRUPTED)
        raise
    finally:
        signal.signal(signal.SIGTERM, terminates)
        signal.set_wakeup_fd(before)
        waker.close()


def _limited(handler: Handler, count: int, worker: Worker) -> Handler:
    """Return a handler that stops the worker when it is called for the last time."""
    left = itertools.count(count - 1, -1)  # atomic, as jobs may run in several threads

    def run(job: WorkerJob) -> Any:
        if next(left) <= 0:
            worker.stop()
        return handler(job)

    return run


def _giving_back(handler: Handler, worker: Worker, unusable: list[Unusable]) -> Handler:
    """Return a handler that stops the worker when its command cannot be run; servers give the job to another one."""

    def run(job: WorkerJob) -> Any:
        try:
            return handler(job)
        except Unusable as error:
            unusable.append(error)
            worker.abort()  # so that nothing is reported about the job
            raise

    return run


def _load(target: str) -> Handler:
    """Import the function that ``--target`` names.

    Raises:
        UsageError: it does not exist, or cannot run jobs.
    """
    module_name, colon, path = target.partition(":")
    if not module_name or not colon or not path:
        raise UsageError(f"--target {target}: the form is module:function.")
    with suppress(FileNotFoundError):  # the directory was removed
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, ImportError) and str(error) else described(error).removesuffix(": ")
        raise UsageError(f"--target {target}: {module_name} cannot be imported: {text}.") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise UsageError(f"--target {target}: {module_name} has no {path}.") from None
    if not callable(found):
        raise UsageError(f"--target {target}: not a function.")
    if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
        raise UsageError(f"--target {target}: this worker cannot run asynchronous functions.")
    if not _takes_a_job(found):
        raise UsageError(f"--target {target}: the function must accept one argument, the job.")
    handler: Handler = found
    return handler


def _takes_a_job(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind("job")
    except TypeError:
        return False
    except ValueError:  # some functions written in C have no signature
        return True
    return True


def _command(words: Sequence[str], commands: Commands) -> Handler:
    """Return a handler that runs a command.

    Raises:
        UsageError: there is no such command.
    """
    try:
        check_command(words)
    except ValueError as error:
        raise UsageError(f"{error}.") from error

    def run(job: WorkerJob) -> bytes:
        return commands.run(words, job)

    return run
