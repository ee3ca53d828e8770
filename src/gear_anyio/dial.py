"""Opens a stream to a server: its addresses raced, then TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
from anyio.streams.tls import TLSStream

from gear_sync.tls import reason
from gearproto.addresses import Address

__all__ = ["Connect", "dial"]

Connect = Callable[[Address], Awaitable[anyio.abc.AnyByteStream]]
"""Opens a stream to a server, in place of TCP and TLS."""


async def dial(
    address: Address, timeout: float, tls: ssl.SSLContext | None, connect: Connect | None
) -> anyio.abc.AnyByteStream:
    """Connect to a server.

    Args:
        address: the server.
        timeout: seconds for all of it.
        tls: the context for TLS; None for plain TCP.
        connect: opens the stream instead; None for TCP.

    Raises:
        OSError: the server cannot be reached.
    """
    try:
        with anyio.fail_after(timeout):
            if connect is not None:
                return await connect(address)
            return await _connect_tcp(address, tls)
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout:g} s") from None


async def _connect_tcp(address: Address, tls: ssl.SSLContext | None) -> anyio.abc.AnyByteStream:
    try:
        stream = await anyio.connect_tcp(address.host, address.port)
    except OSError as error:
        raise _told(error) from error
    sock = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if tls is None:
        return stream
    try:
        return await TLSStream.wrap(stream, hostname=address.host, ssl_context=tls, standard_compatible=False)
    except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError) as error:
        await anyio.aclose_forcefully(stream)
        cause = error if isinstance(error, ssl.SSLError) else error.__cause__
        text = reason(cause) if isinstance(cause, OSError) else "it has gone without a word"
        raise ConnectionError(f"TLS: {text}") from error
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


def _told(error: OSError) -> OSError:
    """Return the reason behind "all attempts failed", in the system's words: the last one's, if there were several."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[-1]
    told = cause if isinstance(cause, OSError) else error
    # Event loops put texts of their own in place of the system's. The codes of getaddrinfo are negative.
    return OSError(told.errno, os.strerror(told.errno)) if told.errno is not None and told.errno > 0 else told
