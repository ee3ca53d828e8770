"""Job servers and workers, and the command ``gear`` as its users run it."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gear_sync
from gear_cli.main import main
from gearproto import JobFailed
from tests.harness.ports import HeldPort

WAIT = 60  # seconds; far more than anything here takes, so that only a hang reaches it

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Refusal = Callable[..., tuple[int, str]]


def command(*words: str) -> list[str]:
    """Return what starts ``gear`` with these words."""
    return [sys.executable, "-m", "gear_cli", *words]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with more, and without what would change how ``gear`` reads and writes."""
    apart = ("GEAR_", "PYTHONUNBUFFERED", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(apart)}
    return {**kept, "COLUMNS": "80", **variables}


@contextmanager
def in_time(process: "subprocess.Popen[Any]", seconds: float = WAIT) -> Iterator[None]:
    """Kill a process that a block waits for too long: whatever reads its output sees the end then, and fails."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@pytest.fixture
def gear() -> Run:
    """Run ``gear`` as a process: ``gear(*words, stdin=b"", **variables)``."""

    def run(*words: str, stdin: bytes = b"", **variables: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            command(*words),
            input=stdin,
            capture_output=True,
            timeout=WAIT,
            env=environment(**variables),
            check=False,
        )

    return run


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str]) -> Refusal:
    """Run ``gear`` in this process with words that it refuses; return the exit code and its one sentence."""

    def run(*words: str) -> tuple[int, str]:
        code = main(words)
        out, err = capfd.readouterr()
        assert out == ""
        assert err.endswith(".\n")
        assert err.count("\n") == 1
        return code, err

    return run


@pytest.fixture
def idle() -> Iterator[gear_sync.Server]:
    """Run a server without workers."""
    with gear_sync.Server(port=0) as server:
        yield server


class Hold:
    """A function that tells when it runs and that it is halfway, and waits until it may end."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, job: gear_sync.WorkerJob) -> bytes:
        self.running.set()
        job.progress(1, 2)
        self.may_end.wait(WAIT)
        return job.workload


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Return the worker's function ``hold``."""
    hold = Hold()
    yield hold
    hold.may_end.set()


@pytest.fixture
def server(idle: gear_sync.Server, hold: Hold) -> Iterator[gear_sync.Server]:
    """Run a server and a worker."""
    worker = gear_sync.Worker(idle.address)
    worker.register("hold", hold)

    @worker.function("echo")
    def echo(job: gear_sync.WorkerJob) -> bytes:
        job.progress(1, 2)
        return job.workload

    @worker.function("pieces")
    def pieces(job: gear_sync.WorkerJob) -> Iterator[bytes]:
        for byte in job.workload:
            yield bytes([byte])

    @worker.function("warn")
    def warn(job: gear_sync.WorkerJob) -> bytes:
        job.warn(b"take care")
        return b"done"

    @worker.function("odd")
    def odd(job: gear_sync.WorkerJob) -> bytes:
        if int(job.workload) % 2 == 0:
            raise JobFailed
        return b"odd\n"

    @worker.function("nasty")
    def nasty(job: gear_sync.WorkerJob) -> bytes:
        job.warn(job.workload)
        raise ValueError(job.workload.decode())

    @worker.function("raise")
    def raise_(job: gear_sync.WorkerJob) -> bytes:
        raise ValueError("no such luck")

    thread = threading.Thread(target=worker.run)
    thread.start()
    yield idle
    hold.may_end.set()
    worker.stop()
    thread.join(WAIT)
    worker.close()


@pytest.fixture
def at(server: gear_sync.Server) -> str:
    """Return the option that names the server with a worker."""
    return f"--server=127.0.0.1:{server.port}"


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[int]:
    """Listen on a port and on the Unix socket ``taken``."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "taken"))
        local.listen()
        yield tcp.getsockname()[1]


@pytest.fixture
def unused_port() -> Iterator[int]:
    """Hold a port on which nobody listens."""
    with HeldPort() as port:
        yield port.number
