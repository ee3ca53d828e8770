"""Where job servers are: host and port, as people write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["DEFAULT_PORT", "Address", "check_host", "parse_address", "parse_addresses"]

DEFAULT_PORT: Final = 4730
"""The port that IANA has assigned to Gearman."""


class Address(NamedTuple):
    """Host and TCP port of a job server.

    Attributes:
        host: name or address.
        port: 1 to 65535.
    """

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        """Write the address as `parse_address` reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_host(host: str) -> None:
    """Refuse a name that could be no host's; looking it up would fail with an error about encodings.

    Raises:
        ValueError: it could not.
    """
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{host!r} cannot be the name of a host") from error


def parse_address(text: str | tuple[str, int]) -> Address:
    """Read an address.

    Args:
        text: ``host``, ``host:port``, an IPv6 address, ``[IPv6]:port``, or a pair of host and port.

    Raises:
        ValueError: it is none of these.
    """
    if not isinstance(text, str):
        host, port = text
        return _checked(host, port, text)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no address: the bracket has no counterpart, or no port follows it")
        return _checked(host, rest[1:] or DEFAULT_PORT, text)
    if text.count(":") > 1:  # an IPv6 address without a port
        return _checked(text, DEFAULT_PORT, text)
    host, colon, port_text = text.partition(":")
    return _checked(host, port_text if colon else DEFAULT_PORT, text)


def _checked(host: str, port: int | str, text: object) -> Address:
    if not host:
        raise ValueError(f"{text!r} is no address: it has no host")
    check_host(host)
    try:
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise ValueError(f"{text!r} is no address: the port has to be a number from 1 to 65535")
    return Address(host, number)


def parse_addresses(texts: str | tuple[str, int] | Iterable[str | tuple[str, int]]) -> list[Address]:
    """Read one address or several, which a string parts by commas; each counts once.

    Raises:
        ValueError: one is no address, or there is none.
    """
    found: list[Address] = []
    if isinstance(texts, str):
        texts = [part.strip() for part in texts.split(",")]
    elif isinstance(texts, tuple) and len(texts) == 2 and isinstance(texts[1], int):
        texts = [(str(texts[0]), texts[1])]
    for text in texts:
        if isinstance(text, int):
            raise ValueError(f"{text!r} is no address")
        found.append(parse_address(text))
    if not found:
        raise ValueError("no server is given")
    return list(dict.fromkeys(found))
