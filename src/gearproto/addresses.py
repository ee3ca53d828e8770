"""Where job servers are: host and port, or the path of a Unix socket, as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias, cast

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "ServerAddress",
    "ServerAddresses",
    "check_host",
    "parse_address",
    "parse_addresses",
]

DEFAULT_PORT: Final = 4730
"""The port that IANA has assigned to Gearman."""

_UNIX: Final = "unix:"
_NAME: Final = re.compile(rb"[A-Za-z0-9._-]+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

ServerAddress: TypeAlias = "str | tuple[str, int | str]"
"""The address of a job server: ``host``, ``host:port``, ``[IPv6]:port``, ``unix:PATH``, or a pair of host and port."""

ServerAddresses: TypeAlias = "ServerAddress | Iterable[ServerAddress]"
"""One address or several; a string holds several with commas between them."""


class Address(NamedTuple):
    """Where a job server is.

    Attributes:
        host: name or address; ``unix:PATH`` for a Unix socket.
        port: TCP port, 1 to 65535; 0 for a Unix socket.
    """

    host: str
    port: int = DEFAULT_PORT

    @property
    def path(self) -> str | None:
        """The path of a Unix socket; None for TCP."""
        return self.host.removeprefix(_UNIX) if self.host.startswith(_UNIX) else None

    def __str__(self) -> str:
        """Write the address as `parse_address` reads it."""
        if self.path is not None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_host(host: str) -> None:
    """Refuse what is neither the name of a host nor an address of the Internet Protocol.

    Raises:
        ValueError: it is neither.
    """
    if ":" in host:
        from ipaddress import IPv6Address  # noqa: PLC0415  (it takes long to import, and most need it never)

        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv6 address") from None
        return
    try:
        name = host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{host!r} cannot be the name of a host") from error
    if not _NAME.fullmatch(name):
        raise ValueError(f"{host!r} cannot be the name of a host")


def parse_address(text: ServerAddress) -> Address:
    """Read an address.

    Args:
        text: ``host``, ``host:port``, an IPv6 address, ``[IPv6]:port``, ``unix:PATH``, or a pair of host and port.

    Raises:
        ValueError: it is none of these.
    """
    try:
        return _parsed(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a valid address: {error}") from error


def _parsed(text: Any) -> Address:
    if not isinstance(text, str):
        if not isinstance(text, tuple | list) or len(text) != 2 or not isinstance(text[0], str):
            raise ValueError("it has to be host:port, unix:PATH, or a pair of host and port")
        host, port = text
        return _unix(host) if host.startswith(_UNIX) and port == 0 else _checked(host, port)
    if text.startswith(_UNIX):
        return _unix(text)
    if (scheme := _SCHEME.match(text)) is not None:
        raise ValueError(f"leave out {scheme[0]!r}")
    if text.startswith("/"):
        raise ValueError(f"a Unix socket is written unix:{text}")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("a bracket is missing, or no port follows it")
        return _checked(host, rest[1:] if rest else DEFAULT_PORT)
    if text.count(":") > 1:  # an IPv6 address without a port
        return _checked(text, DEFAULT_PORT)
    host, colon, port_text = text.partition(":")
    return _checked(host, port_text if colon else DEFAULT_PORT)


def _unix(host: str) -> Address:
    if host == _UNIX or "\0" in host:
        raise ValueError("it has no valid path")
    return Address(host, 0)


def _checked(host: str, port: object) -> Address:
    if not host:
        raise ValueError("it has no host")
    check_host(host)
    if isinstance(port, str) and _is_number(port):
        port = int(port)
    if type(port) is not int or not 0 < port < 65536:
        raise ValueError("the port has to be a number from 1 to 65535")
    return Address(host, port)


def _is_number(port: object) -> bool:
    return isinstance(port, str) and port.isascii() and port.isdecimal() and len(port) < 6


def parse_addresses(texts: ServerAddresses) -> list[Address]:
    """Read one address or several, separated by commas in a string; each counts once.

    Two strings in a tuple are a host and its port if the second is a number, and two addresses otherwise.

    Raises:
        ValueError: one is not a valid address, or there is none.
    """
    given: object = texts
    several: Iterable[ServerAddress]
    if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable):
        several = [cast("ServerAddress", texts)]  # which is not an address, as `parse_address` says
    elif isinstance(texts, str):
        several = [part.strip() for part in texts.split(",")]
    elif isinstance(texts, tuple) and len(texts) == 2 and (isinstance(texts[1], int) or _is_number(texts[1])):
        several = [cast("ServerAddress", texts)]
    else:
        several = cast("Iterable[ServerAddress]", texts)
    found = [parse_address(text) for text in several]
    if not found:
        raise ValueError("no server is given")
    return list(dict.fromkeys(found))
