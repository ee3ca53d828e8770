"""A server that does what a test tells it, for every way in which a server can misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gearproto.events import Event
from gearproto.framing import Decoder
from gearproto.packets import RESPONSE, Packet, Route, decoders

__all__ = ["HostileServer", "Peer"]

_WAIT = 20.0  # seconds; only a hang reaches it


class Peer:
    """One connection to the hostile server."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder(decoders(Route.TO_SERVER))
        sock.settimeout(_WAIT)

    def receive(self) -> Event:
        """Return the next packet or line that the other side sends."""
        while (event := self._decoder.next()) is None:
            data = self._sock.recv(65536)
            if not data:
                raise EOFError
            self._decoder.feed(data)
        return event

    def receive_until(self, kind: type[Event]) -> Event:
        """Return the next packet of a kind; others are dropped."""
        while not isinstance(event := self.receive(), kind):
            pass
        return event

    def send(self, *what: Packet | bytes) -> None:
        """Send packets as responses, and bytes as they are."""
        data = b"".join(item if isinstance(item, bytes) else item.encode(RESPONSE) for item in what)
        self._sock.sendall(data)

    def wait_for_end(self) -> None:
        """Wait until the other side closes the connection."""
        with contextlib.suppress(OSError):
            while self._sock.recv(65536):
                pass

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


class HostileServer:
    """Listens, and runs a script for each connection, one after the other, in a thread.

    A connection is closed when its script returns. After the last script further connections are refused.

    Attributes:
        address: where it listens.
    """

    def __init__(self, *scripts: Callable[[Peer], None]) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_WAIT)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._errors: list[BaseException] = []
        self._played = 0
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="hostile server", daemon=True)

    def wait_for_scripts(self, count: int) -> None:
        """Wait until so many scripts have been played, and their connections closed."""
        with self._progress:
            assert self._progress.wait_for(lambda: self._played >= count, _WAIT)

    def join(self) -> None:
        """Wait until the last script has been played."""
        self._thread.join(_WAIT)
        assert not self._thread.is_alive()
        assert not self._errors, self._errors

    def _run(self) -> None:
        try:
            for script in self._scripts:
                sock, _address = self._listener.accept()
                with sock, contextlib.suppress(ConnectionError, EOFError):  # the client may be the first to go
                    script(Peer(sock))
                with self._progress:
                    self._played += 1
                    self._progress.notify_all()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._listener.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.join()
        else:
            self._thread.join(_WAIT)
