"""Both ends of a TLS connection, in memory."""

from __future__ import annotations

from gear_net.tls import TLS, client_context, server_context
from gear_net.tunnel import Tunnel

__all__ = ["pair", "shake_hands"]


def shake_hands(client: Tunnel, server: Tunnel) -> None:
    """Pass on what the two say until both are established."""
    while not (client.established and server.established):
        server.receive(client.data_to_send())
        client.receive(server.data_to_send())


def pair(server: TLS, client: TLS, name: str = "localhost") -> tuple[Tunnel, Tunnel]:
    """Return a client and a server that have shaken hands."""
    ends = (
        Tunnel(client_context(client), server_hostname=name),
        Tunnel(server_context(server), server_side=True),
    )
    shake_hands(*ends)
    return ends
