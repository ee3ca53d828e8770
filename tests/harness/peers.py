"""The server's end of a pipe in memory, in the hands of a test: for virtual time, and for what no socket lets see."""

from __future__ import annotations

from typing import TypeVar

import anyio
import anyio.abc
import pytest
import trio.testing
from anyio.streams.stapled import StapledObjectStream

from gearproto.addresses import Address
from gearproto.codec import RESPONSE, Packet
from gearproto.event import Event
from gearproto.framing import Decoder
from gearproto.server import server_decoders

from .network import pipe

__all__ = ["PipePeer", "Pipes", "virtual_time"]

_E = TypeVar("_E", bound=Event)


def virtual_time() -> pytest.MarkDecorator:
    """Make a test run on trio, in time that passes only when all tasks wait for it."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return pytest.mark.parametrize("anyio_backend", [pytest.param(("trio", {"clock": clock}), id="virtual")])


class PipePeer:
    """A connection that has come over a pipe."""

    def __init__(self, stream: anyio.abc.AnyByteStream) -> None:
        self.stream = stream
        self._decoder = Decoder(server_decoders())

    async def receive(self, kind: type[_E]) -> _E:
        """Return the next packet or line of a kind; others are dropped."""
        while True:
            while (event := self._decoder.next()) is None:
                self._decoder.feed(await self.stream.receive())
            if isinstance(event, kind):
                return event

    async def send(self, *what: Packet | bytes) -> None:
        """Send packets as responses, and bytes as they are, in one piece."""
        await self.stream.send(b"".join(w if isinstance(w, bytes) else w.encode(RESPONSE) for w in what))

    async def expect_end(self) -> None:
        """Wait until the other side has closed the connection."""
        try:
            while True:
                await self.stream.receive()
        except anyio.EndOfStream:
            pass

    async def close(self) -> None:
        """Close the connection."""
        await self.stream.aclose()


class Pipes:
    """A server without a server: hands the test each connection that is made.

    Attributes:
        times: when connections were asked for.
    """

    def __init__(self, size: float = 0) -> None:
        """Begin with pipes that hold so many chunks each way."""
        self.times: list[float] = []
        self._size = size
        self._streams: list[StapledObjectStream[bytes]] = []
        self._send, self._receive = anyio.create_memory_object_stream[PipePeer](100)

    async def connect(self, _address: Address) -> anyio.abc.AnyByteStream:
        """Connect a client or worker."""
        self.times.append(anyio.current_time())
        ours, theirs = pipe(self._size)
        self._streams.append(theirs)
        await self._send.send(PipePeer(theirs))
        return ours

    async def accept(self) -> PipePeer:
        """Return the next connection."""
        return await self._receive.receive()

    def close(self) -> None:
        """Close the server's ends of all connections."""
        self._send.close()
        self._receive.close()
        for stream in self._streams:
            stream.send_stream.close()  # type: ignore[attr-defined]
            stream.receive_stream.close()  # type: ignore[attr-defined]
