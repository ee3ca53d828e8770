"""Addresses and options in, a reactor out; and what the servers of both packages share."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import ssl
import time
import warnings
from collections.abc import Iterable
from typing import Final, Unpack, cast

import gearproto
from gearproto import DEFAULT_PORT
from gearproto.server import Endpoint, EndpointOptions, Engine, EngineOptions

from .expiry import warn_of_expiry
from .listening import DEFAULT_BACKLOG, Keepalive, listen
from .machine import machine_memory
from .reactor import Reactor
from .tls import TLS, server_context

__all__ = ["ServerBase", "ServerOptions", "open_reactor"]

_log = logging.getLogger("gear_sync.server")

_TRIM_STEP: Final = 64 * 1024 * 1024  # bytes by which jobs and output have to shrink before memory is given back


class ServerOptions(EngineOptions, EndpointOptions, total=False):
    """The options of a server; see `open_reactor`."""

    listen: Iterable[str | tuple[str, int]]
    sockets: Iterable[socket.socket]
    backlog: int
    keepalive: Keepalive | None
    tls: TLS | ssl.SSLContext | None
    handshake_timeout: float
    handle_prefix: str
    max_memory: int | None
    trim_memory: bool


def open_reactor(host: str, port: int, **options: Unpack[ServerOptions]) -> Reactor:
    """Listen, and return a reactor with a new engine.

    Args:
        host: address or name to listen on.
        port: TCP port; 0 lets the system choose.
        **options: the options of `gearproto.server.Engine`, and

            - ``listen``: addresses to listen on instead of host and port: see `gear_net.listening.listen`;
            - ``sockets``: listening sockets to use as they are; the reactor closes them;
            - ``backlog``: how many connections may wait to be accepted;
            - ``keepalive``: TCP keepalive; None turns it off;
            - ``tls``: a `gear_net.tls.TLS` with certificate and key, or a context for servers, with which connections
              begin on all addresses; None for plain TCP;
            - ``handle_prefix``: what job handles begin with, ``H:`` and the host's name by default; a random
              part that differs from start to start follows, so that old handles never name new jobs;
            - ``max_connections``, ``pause_at``, ``max_unsent``, ``max_behind``: see `gearproto.server.Endpoint`;
            - ``max_memory``: bytes that peers may make the server keep, estimated; None for half of the machine's
              memory;
            - ``trim_memory``: whether the C library gives memory back to the system (``malloc_trim``) when there is
              nothing to do, and jobs and unread output take 64 MiB less than they did;
            - ``handshake_timeout``: seconds within which a TLS handshake has to be over.

    Raises:
        OSError: an address cannot be listened on.
        TypeError: an option does not exist.
        ValueError: an option is not valid, or a TLS file cannot be used.
    """
    if unknown := options.keys() - ServerOptions.__annotations__.keys():
        raise TypeError(f"a server has no option {', '.join(sorted(unknown))}")
    tls = options.get("tls")
    context = None if tls is None else _own_context(tls)
    prefix = options.get("handle_prefix", f"H:{socket.gethostname()[:24]}")
    engine = Engine(
        handle_prefix=f"{prefix}:{secrets.token_hex(4)}".encode(),
        epoch_offset=time.time() - time.monotonic(),
        version=gearproto.__version__.encode(),
        pid=os.getpid(),
        trace=_log.isEnabledFor(logging.DEBUG),
        **cast("EngineOptions", _chosen(options, EngineOptions)),
    )
    sockets = options.get("sockets")
    if sockets is None:
        sockets = listen(options.get("listen", [(host, port)]), options.get("backlog", DEFAULT_BACKLOG))
    keepalive = options.get("keepalive", Keepalive())
    max_memory = options.get("max_memory")
    endpoint = Endpoint(
        engine,
        max_memory=machine_memory() // 2 if max_memory is None else max_memory,
        trim_step=_TRIM_STEP if options.get("trim_memory") else None,
        **cast("EndpointOptions", _chosen(options, EndpointOptions)),
    )
    timeout = options.get("handshake_timeout", 10.0)
    return Reactor(endpoint, sockets, keepalive=keepalive, tls=context, handshake_timeout=timeout)


def _own_context(tls: TLS | ssl.SSLContext) -> ssl.SSLContext:
    """Make the context of a server that begins, or that is given a new certificate."""
    context = server_context(tls)
    if isinstance(tls, TLS):
        warn_of_expiry(tls.certificate, tls.key, server_side=True)
    return context


def _chosen(options: ServerOptions, names: type) -> dict[str, object]:
    """Return the options that one part of the server takes."""
    return {name: value for name, value in options.items() if name in names.__annotations__}


class ServerBase:
    """What the servers of both idioms have in common: a reactor and its addresses.

    Attributes:
        addresses: where it listens, as pairs of host and port, or paths of Unix sockets.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT, **options: Unpack[ServerOptions]) -> None:
        """Listen. Peers can connect from now on, and are served when the server runs.

        Args:
            host: address or name to listen on.
            port: TCP port; 0 lets the system choose.
            **options: see `open_reactor`.

        Raises:
            OSError: an address cannot be listened on.
            TypeError: an option does not exist.
            ValueError: an option is not valid, or a TLS file cannot be used.
        """
        self._reactor = open_reactor(host, port, **options)
        self._tls = options.get("tls")
        self.addresses = self._reactor.addresses

    def __del__(self) -> None:
        """Close the sockets of a server that nobody can close any more, and warn of it."""
        if "_reactor" in vars(self) and not self._reactor.closed:  # else it never listened
            names = ", ".join(map(str, self.addresses))
            package = type(self).__module__.partition(".")[0]
            warnings.warn(f"{package}.Server on {names} was not closed", ResourceWarning, source=self, stacklevel=2)
            self._reactor.close()

    def reload_tls(self) -> None:
        """Read the TLS files again, for new connections; open connections are not affected.

        May be called from any thread.

        Raises:
            ValueError: a file cannot be used, and the server keeps the previous ones; or it was not created with files.
        """
        if not isinstance(self._tls, TLS):
            raise ValueError("the server has no TLS files that it could read again")
        self._reactor.tls = _own_context(self._tls)
        _log.info("TLS: the files have been read again, for new connections")

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that the server listens on, the first one of several."""
        return next(address for address in self.addresses if isinstance(address, tuple))

    @property
    def port(self) -> int:
        """The TCP port that the server listens on; with port 0, the one that the system has chosen."""
        return self.address[1]
