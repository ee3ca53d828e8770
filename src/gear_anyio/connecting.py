"""Opens a transport to a server."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import anyio
import anyio.abc

from gear_net.connecting import Dial, Endpoint, failure_of_connect, unix_endpoint
from gear_net.tls import ClientTLS
from gear_net.tunnel import TLSSocket
from gearproto.addresses import Address
from gearproto.connection import Connection
from gearproto.event import Event

from .link import Link
from .socket_link import SocketLink
from .stream_link import StreamLink

__all__ = ["Connect", "Transport", "dial", "join"]

_READ: Final = selectors.EVENT_READ

Transport = socket.socket | TLSSocket | anyio.abc.AnyByteStream
"""A connected, non-blocking socket, with TLS or without; or any byte stream."""

Connect = Callable[[Address], Awaitable[anyio.abc.AnyByteStream]]
"""Opens a byte stream to a server, in place of TCP and TLS."""


async def dial(
    address: Address,
    timeout: float,
    tls: ClientTLS | None,
    connect: Connect | None,
    order: Callable[[Iterable[Endpoint]], list[Endpoint]],
) -> tuple[Transport, Endpoint | None]:
    """Connect to a server; return the transport, and where it leads to, if known.

    Args:
        address: the server.
        timeout: seconds for all of it.
        tls: gives the context for TLS; None for plain TCP.
        connect: opens a stream instead; None for TCP.
        order: returns endpoints in the order in which to try them.

    Raises:
        OSError: the server cannot be reached.
    """
    endpoints: list[Endpoint] = []
    with anyio.move_on_after(timeout) as scope:
        if connect is not None:
            return await _open(connect, address), None
        endpoints = await _look_up(address)
    if scope.cancelled_caught:
        raise TimeoutError(f"no answer within {timeout:g} s")
    attempt = Dial(address, order(endpoints), timeout, tls)
    return await _connected(attempt), attempt.endpoint


async def _look_up(address: Address) -> list[Endpoint]:
    """Look up the addresses of a server."""
    if address.path is not None:
        return [unix_endpoint(address.path)]
    found = await anyio.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), where) for family, _type, _protocol, _name, where in found))


async def _open(connect: Connect, address: Address) -> Transport:
    """Return the transport that the user's function opens.

    Raises:
        OSError: the function raised an error, or returned something else.
    """
    try:
        transport: Any = await connect(address)
        if isinstance(transport, socket.socket):
            transport.setblocking(False)
        elif not hasattr(transport, "receive"):
            raise TypeError(f"{transport!r} is not a byte stream")
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
        raise ConnectionError(str(error) or "the stream is broken") from error
    except OSError:
        raise
    except Exception as error:
        raise failure_of_connect(error) from error
    opened: Transport = transport
    return opened


async def _connected(dial: Dial) -> socket.socket | TLSSocket:
    try:
        while dial.trying is not None:
            ready = 0
            with anyio.move_on_after(max(0.0, dial.deadline - time.monotonic())):
                if dial.wants == _READ:
                    await anyio.wait_readable(dial.trying)
                else:
                    await anyio.wait_writable(dial.trying)
                ready = dial.wants
            dial.advance(time.monotonic(), ready)
    except BaseException:
        dial.close()
        raise
    if dial.error is not None:
        raise dial.error
    assert dial.sock is not None
    return dial.sock


def join(
    transport: Transport,
    conn: Connection,
    on_event: Callable[[Event], object],
    on_read: Callable[[], object] | None = None,
) -> Link:
    """Join a transport and a connection.

    Args:
        transport: a connected, non-blocking socket, with TLS or without; or any byte stream. The link closes it.
        conn: the connection.
        on_event: called with each event.
        on_read: called when the events of something that came have been handed out.
    """
    if isinstance(transport, socket.socket | TLSSocket):
        return SocketLink(transport, conn, on_event, on_read)
    return StreamLink(transport, conn, on_event, on_read)
