"""Job servers for tests: ours in a thread, or a real gearmand in a process of its own, behind one interface."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal

import gear_sync

from . import programs
from .ports import HOST, HeldPort

__all__ = ["Gearmand", "HangingServer", "Kind", "OurServer", "RunningServer", "full_listener", "poll_until", "running"]

Kind = Literal["ours", "gearmand"]

_WAIT = 20.0  # seconds; far more than a slow machine needs, so that only a hang reaches it
_POLL = 0.002


def poll_until(condition: Callable[[], bool], what: str) -> None:
    """Ask until a condition holds; for what gives no event to wait for.

    Raises:
        AssertionError: it does not hold in time.
    """
    deadline = time.monotonic() + _WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {_WAIT} s: {what}")
        time.sleep(_POLL)


class RunningServer(ABC):
    """A job server that runs until `close`.

    Attributes:
        kind: which server it is.
        host: where it listens.
        port: where it listens.
    """

    kind: Kind
    host = HOST
    port: int

    @property
    def address(self) -> str:
        """Host and port with a colon between them."""
        return f"{self.host}:{self.port}"

    @abstractmethod
    def restart(self) -> None:
        """Stop the server and start it again on the same port; it forgets all jobs."""

    @abstractmethod
    def close(self) -> None:
        """Stop the server."""


class OurServer(RunningServer):
    """`gear_sync.Server` in a thread."""

    kind = "ours"

    def __init__(self, **options: Any) -> None:
        """Start it; the options are those of `gear_sync.Server`."""
        self._options = options
        self._stack = contextlib.ExitStack()
        self._held = HeldPort()
        self.port = self._held.number
        self._start()

    def _start(self) -> None:
        self.server = self._stack.enter_context(gear_sync.Server(HOST, self.port, **self._options))

    def restart(self) -> None:
        self._stack.close()
        self._start()

    def close(self) -> None:
        self._stack.close()
        self._held.close()


class HangingServer:
    """`gear_sync.Server` in a process of its own, which can be made to hang: its system still accepts connections.

    Attributes:
        address: where it listens.
    """

    def __init__(self) -> None:
        """Start it, and wait until it listens."""
        program = "import gear_sync; s = gear_sync.Server(port=0); print(*s.address, flush=True); s.serve_forever()"
        self._process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        host, port = self._process.stdout.readline().split()
        self.address = (host, int(port))

    def hang(self) -> None:
        """Stop the process (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process run again."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Gearmand(RunningServer):
    """Debian's gearmand in a process of its own."""

    kind = "gearmand"

    def __init__(self, *arguments: str) -> None:
        """Start it with further arguments, and wait until it answers."""
        self._program = programs.require("gearmand")
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="gearmand-")
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the server)
        self._held = HeldPort()
        self.port = self._held.number
        self._start()

    def _start(self) -> None:
        """Start the process, and wait until it answers."""
        command = [self._program, "--port", str(self.port), "--listen", self.host, "--log-file", "stderr"]
        command += ["--pid-file", os.path.join(self._folder.name, "pid"), *self._arguments]
        if os.geteuid() == 0:
            command += ["--user", "root"]
        process = self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

        def answers() -> bool:
            return process.poll() is not None or _answers(self.host, self.port)

        poll_until(answers, "gearmand answers or ends")
        if process.poll() is not None:
            text = self._stderr()
            self.close()
            raise AssertionError(f"gearmand does not start:\n{text}")

    def restart(self) -> None:
        self._stop()
        self._start()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()  # it has nothing to save, and on SIGTERM it hangs once in a thousand times
        self._process.wait()
        self._process = None

    def _stderr(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        self._stop()
        if not self._log.closed:
            sys.stderr.write(self._stderr())  # pytest shows it if the test fails
            self._log.close()
        self._held.close()
        self._folder.cleanup()


@contextlib.contextmanager
def full_listener() -> Iterator[socket.socket]:
    """Listen, but let connects hang: the system accepts no more in the listener's place."""
    with socket.create_server((HOST, 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        while True:
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(listener.getsockname())
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_WRITE)
                if not selector.select(0.01):  # on loopback, connect is over before it returns
                    break
        yield listener


@contextlib.contextmanager
def running(kind: Kind, *arguments: str, **options: Any) -> Iterator[RunningServer]:
    """Run a job server for the time of a block.

    Args:
        kind: which one.
        *arguments: command line of gearmand; ours does without.
        **options: options of `gear_sync.Server`; gearmand does without.
    """
    server = OurServer(**options) if kind == "ours" else Gearmand(*arguments)
    try:
        yield server
    finally:
        server.close()


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _WAIT) as sock:
            sock.sendall(b"version\n")
            return sock.recv(100).startswith(b"OK")
    except OSError:
        return False
