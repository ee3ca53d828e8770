"""A server that does what a test tells it, for every way in which a server can misbehave."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gearproto.codec import RESPONSE, Packet
from gearproto.event import Event
from gearproto.events import Line
from gearproto.framing import Decoder
from gearproto.outcomes import Completed, Failed, Lost, Outcome, Raised, Rejected
from gearproto.packets import (
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GrabJobAll,
    JobAssign,
    JobAssignAll,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearproto.server import Report, server_decoders

from .ports import HeldPort

__all__ = [
    "CONVERSATIONS",
    "MISDEEDS",
    "HostileServer",
    "Peer",
    "Script",
    "bytes_of",
    "comes_back_with_the_same_handles",
    "give_one_job",
    "serve_clients",
]

_WAIT = 20.0  # seconds; only a hang reaches it


class Peer:
    """One connection to the hostile server."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder(server_decoders())
        sock.settimeout(_WAIT)

    def receive(self) -> Event:
        """Return the next packet or line that the other side sends."""
        while (event := self._decoder.next()) is None:
            data = self._sock.recv(65536)
            if not data:
                raise EOFError
            self._decoder.feed(data)
        return event

    def receive_some(self) -> bytes:
        """Return what the other side has sent, whatever it is."""
        return self._sock.recv(65536)

    def take(self, size: int) -> int:
        """Read some bytes, for `receive` to return what they begin or end; return how many."""
        data = self._sock.recv(size)
        if not data:
            raise EOFError
        self._decoder.feed(data)
        return len(data)

    def receive_until(self, kind: type[Event]) -> Event:
        """Return the next packet of a kind; others are dropped."""
        while not isinstance(event := self.receive(), kind):
            pass
        return event

    def answer_until(self, kind: type[Event]) -> Event:
        """Return the next packet of a kind; ``ECHO_REQ`` before it is answered, and others are dropped."""
        while not isinstance(event := self.receive(), kind):
            if isinstance(event, EchoReq):
                self.send(EchoRes(event.data))
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

    def reset(self) -> None:
        """End the connection so that the other side gets an error and none of what was sent last."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


Script = Callable[[Peer], None]
"""What a server does with one connection."""


class HostileServer:
    """Listens, and runs a script for each connection, one after the other, in a thread.

    A connection is closed when its script returns. After the last script further connections are refused.

    Attributes:
        address: where it listens.
    """

    def __init__(self, *scripts: Script, then: Script | None = None) -> None:
        """Listen.

        Args:
            *scripts: what is done with the first connections.
            then: what is done with every further one, instead of refusing it, until the block ends: for peers that
                come back, but may find even a good server too slow, and leave it again.
        """
        self._scripts = scripts
        self._then = then
        self._ending = False
        self._held = HeldPort()
        self._listener = socket.create_server(self._held.address)
        self._listener.settimeout(_WAIT)
        self.address = self._held.address
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
        further = itertools.repeat(self._then) if self._then is not None else ()
        try:
            for script in itertools.chain(self._scripts, further):
                sock, _address = self._listener.accept()
                with sock, contextlib.suppress(ConnectionError, EOFError):  # the client may be the first to go
                    if self._ending:
                        return
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
        if self._then is not None:
            self._ending = True
            with contextlib.suppress(OSError):
                socket.create_connection(self.address).close()  # it waits for one
        try:
            if error is None:
                self.join()
            else:
                self._thread.join(_WAIT)
        finally:
            self._held.close()


# Servers that behave


def serve_clients(peer: Peer) -> None:
    """Answer what clients ask as a server would that completes all jobs at once; their result is ``b"result"``."""
    jobs = 0
    while True:
        request = peer.receive()
        if isinstance(request, SubmitJob | SubmitJobBg):
            jobs += 1
            handle = b"H:%d" % jobs
            peer.send(JobCreated(handle))
            if isinstance(request, SubmitJob):
                peer.send(WorkComplete(handle, b"result"))
        elif isinstance(request, EchoReq):
            peer.send(EchoRes(request.data))
        elif isinstance(request, OptionReq):
            peer.send(OptionRes(request.option))
        elif isinstance(request, GetStatus):
            peer.send(StatusRes(request.handle, False, False, 0, 0))
        elif isinstance(request, Line):
            peer.send(b".\n")


def give_one_job(peer: Peer) -> Report:
    """Give a worker a job of the function ``reverse`` with the workload ``b"abc"``, and return its end."""
    peer.answer_until(GrabJobAll)
    peer.send(JobAssignAll(b"H:good", b"reverse", b"", b"", b"abc"))
    report = peer.receive_until(Report)
    assert isinstance(report, Report)
    return report


# Servers that misbehave whoever comes: each waits for the first word of its peer


def bytes_of(*packets: Packet) -> bytes:
    """Return packets as a server sends them."""
    return b"".join(packet.encode(RESPONSE) for packet in packets)


def _sends(data: bytes, *, waits: bool) -> Script:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(data)
        if waits:
            peer.wait_for_end()

    return script


def _reset(peer: Peer) -> None:
    peer.receive()
    peer.reset()


_NONSENSE: dict[str, bytes] = {
    "nothing": b"",
    "half a header": b"\0RES\0\0",
    "half a packet": bytes_of(WorkComplete(b"H:1", b"result"))[:-3],
    "garbage": b"\0XXX\0\0\0\0\0\0\0\0",
    "random bytes": bytes(range(256)),
    "zeros": bytes(1000),
    "text": b"hello there\n",
    "text without an end": b"x" * 100_000,
    "unknown packet": b"\0RES\0\0\0\x63\0\0\0\0",
    "request instead of a response": b"\0REQ\0\0\0\x09\0\0\0\0",
    "packet that is too big": b"\0RES\0\0\0\x0d\xff\xff\xff\xff",
    "packet that lacks arguments": b"\0RES\0\0\0\x0d\0\0\0\x01a",
    "errors": bytes_of(*[Error(b"CODE", b"text")] * 20),
    "everything": bytes_of(
        *(Noop(), NoJob(), JobCreated(b"H:9"), WorkStatus(b"H:9", 1, 2), WorkData(b"H:9", b"x")),
        *(WorkComplete(b"H:9", b""), WorkFail(b"H:9"), WorkException(b"H:9", b""), WorkWarning(b"H:9", b"")),
        *(StatusRes(b"H:9", True, True, 1, 2), StatusResUnique(b"u", True, True, 1, 2, 3), OptionRes(b"x")),
        *(EchoRes(b"wrong"), JobAssign(b"H:9", b"unknown", b"")),
    ),
}

MISDEEDS: dict[str, Script] = {
    **{f"sends {name} and closes": _sends(data, waits=False) for name, data in _NONSENSE.items()},
    **{f"sends {name} and waits": _sends(data, waits=True) for name, data in _NONSENSE.items()},
    "resets": _reset,
    "closes without a word": lambda peer: None,
}
"""Ways to misbehave towards clients and workers alike. Those that wait need probes to be found out."""


# Servers that misbehave towards a client that has submitted one foreground job


def _conversation(*packets: Packet, waits: bool = True) -> Script:
    def script(peer: Peer) -> None:
        peer.receive_until(SubmitJob)
        peer.send(OptionRes(b"exceptions"), *packets)
        if waits:
            peer.wait_for_end()

    return script


def _byte_by_byte(peer: Peer) -> None:
    peer.receive_until(SubmitJob)
    for byte in bytes_of(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", b"result")):
        peer.send(bytes([byte]))
    peer.wait_for_end()


CONVERSATIONS: dict[str, tuple[Script, Outcome | type[Lost]]] = {
    "byte by byte": (_byte_by_byte, Completed(b"result")),
    "result before handle": (_conversation(WorkComplete(b"H:1", b"result"), JobCreated(b"H:1")), Completed(b"result")),
    "result twice": (_conversation(JobCreated(b"H:1"), *[WorkComplete(b"H:1", b"result")] * 2), Completed(b"result")),
    "failure behind result": (
        _conversation(JobCreated(b"H:1"), WorkComplete(b"H:1", b"result"), WorkFail(b"H:1")),
        Completed(b"result"),
    ),
    "wrong handles first": (
        _conversation(WorkFail(b"H:2"), JobCreated(b"H:1"), WorkComplete(b"H:2", b"x"), WorkFail(b"H:1")),
        Failed(),
    ),
    "wrong handles only": (_conversation(JobCreated(b"H:1"), WorkComplete(b"H:2", b"x")), Lost),
    "result and close": (_conversation(JobCreated(b"H:1"), WorkComplete(b"H:1", b"r"), waits=False), Completed(b"r")),
    "exception": (_conversation(JobCreated(b"H:1"), WorkException(b"H:1", b"why")), Raised(b"why")),
    "refusal": (_conversation(Error(b"CODE", b"text")), Rejected(b"CODE", b"text")),
    "handle twice": (_conversation(JobCreated(b"H:1"), JobCreated(b"H:1")), Lost),
    "handle and silence": (_conversation(JobCreated(b"H:1")), Lost),
    "handle and close": (_conversation(JobCreated(b"H:1"), waits=False), Lost),
}
"""What a server does with a job, and how the job ends for a client that probes: the outcome, or `Lost`."""


def _takes_and_dies(peer: Peer) -> None:
    peer.receive_until(SubmitJob)
    peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkData(b"H:1", b"old"))


def _same_handle(peer: Peer) -> None:
    peer.receive_until(SubmitJob)
    peer.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkData(b"H:1", b"new "), WorkComplete(b"H:1", b"result"))
    peer.wait_for_end()


comes_back_with_the_same_handles: tuple[Script, Script] = (_takes_and_dies, _same_handle)
"""The job of the first connection is `Lost`; that of the second completes with ``b"new result"``."""
