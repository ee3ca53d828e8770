"""The options that commands share, and what they are read into."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Group, Parameter

from gearproto import DEFAULT_MAX_SERVER_PACKET_SIZE
from gearproto.addresses import Address, parse_addresses
from gearproto.worker import described

from .exits import UsageError, reason
from .stdio import printable

if TYPE_CHECKING:
    from gear_sync import TLS

__all__ = [
    "LONGEST_WAIT",
    "STDIN",
    "Flag",
    "Servers",
    "TlsCa",
    "TlsCertificate",
    "TlsFlag",
    "TlsKey",
    "Verbose",
    "client_tls",
    "from_environment",
    "log_to_stderr",
    "read_file",
    "read_whole",
    "seconds",
    "server_addresses",
]

LONGEST_WAIT: Final = 1e9
"""Seconds that an option may ask to wait at most, some 30 years."""

DEFAULT_SERVER: Final = "127.0.0.1:4730"
SERVERS_VARIABLE: Final = "GEAR_SERVERS"

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


STDIN: Final = "\0"
"""What the word ``-`` of ``gear submit`` is handed on as: cyclopts takes it for an option. No argument can be this."""


Servers = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--server", "-s"],
        show_default=False,
        help="A job server, as host, host:port or unix:PATH; repeat the option, or put commas between several. Without "
        f"it the environment variable {SERVERS_VARIABLE} names them, with commas or blanks between them; if that is "
        f"unset or empty, it is {DEFAULT_SERVER}.",
    ),
]


def seconds(limit: float) -> Parameter:
    """Return what makes an option a time of more than 0 seconds, and at most ``limit``."""

    def check(_type: Any, value: float | None) -> None:
        if value is not None and not 0 < value <= limit:  # which is false for nan, too
            raise ValueError(f"Must be > 0 and <= {limit:,.0f} (seconds).")

    return Parameter(validator=check)


Flag = Annotated[bool, Parameter(show_default=False)]

_TLS: Final = Group.create_ordered("TLS")

TlsFlag = Annotated[
    bool,
    Parameter(
        name="--tls",
        group=_TLS,
        show_default=False,
        help="Speak TLS with the servers; the other TLS options imply it.",
    ),
]
TlsCa = Annotated[
    Path | None,
    Parameter(
        name="--tls-ca",
        group=_TLS,
        help="File with the CA certificates that servers' certificates are checked against; the system's by default.",
    ),
]
TlsCertificate = Annotated[
    Path | None,
    Parameter(name="--tls-certificate", group=_TLS, help="File with the certificate to show, in PEM form."),
]
TlsKey = Annotated[
    Path | None, Parameter(name="--tls-key", group=_TLS, help="File with the private key of the certificate.")
]

Verbose = Annotated[
    int,
    Parameter(
        name=["--verbose", "-v"],
        count=True,
        show_default=False,
        help="Log what happens to stderr, with -vv in every detail; by default only warnings are logged.",
    ),
]


def server_addresses(servers: Sequence[str]) -> list[Address]:
    """Read the option ``--server``; without it the environment says where the servers are.

    Raises:
        UsageError: one of them is not an address.
    """
    if servers:
        return _addresses([part.strip() for server in servers for part in server.split(",")], "--server")
    return _addresses(from_environment(SERVERS_VARIABLE) or [DEFAULT_SERVER], SERVERS_VARIABLE)


def _addresses(servers: Sequence[str], source: str) -> list[Address]:
    try:
        return parse_addresses(servers)
    except ValueError as error:
        raise UsageError(f"{source}: {error}.") from error


def from_environment(variable: str) -> list[str]:
    """Return the addresses that a variable holds, parted by commas or blanks; none if it is unset or empty.

    Raises:
        UsageError: it comes from Kubernetes, not from somebody who knows ``gear``.
    """
    found = os.environ.get(variable, "").replace(",", " ").split()
    for address in found:
        if address.startswith("tcp://"):
            raise UsageError(
                f"{variable} is {address}, as Kubernetes sets it for a Service; set enableServiceLinks to false in the "
                "pod's spec, or the variable to host:port."
            )
    return found


def client_tls(tls: bool, ca: Path | None, certificate: Path | None, key: Path | None) -> TLS | None:
    """Read the options of TLS.

    Raises:
        ValueError: a certificate comes without a key.
    """
    from gear_net.tls import TLS

    return TLS(certificate=certificate, key=key, ca=ca) if tls or ca or certificate or key else None


def log_to_stderr(verbose: int, handler: logging.Handler | None = None, *, tracebacks: bool = True) -> None:
    """Log what the option ``--verbose`` asks for.

    Args:
        verbose: the option.
        handler: what writes to stderr; one that waits until it can unless given.
        tracebacks: whether to log where in the code an exception was raised.
    """
    level = _LEVELS[min(verbose, len(_LEVELS) - 1)]
    written = handler or logging.StreamHandler()
    written.setFormatter(_Formatter(tracebacks))
    logging.basicConfig(level=level, handlers=[written])


class _Formatter(logging.Formatter):
    """Keeps each record on its line, and from the terminal what peers have put into it."""

    def __init__(self, tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._tracebacks = tracebacks

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        text = super().formatException(ei) if self._tracebacks or ei[1] is None else described(ei[1])
        return printable(text, lines=True)


def read_file(path: Path) -> bytes:
    """Read a file that the command line names.

    Raises:
        UsageError: it cannot be read, or is larger than a job may be.
    """
    try:
        with path.open("rb") as file:
            return read_whole(file, str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}.") from error


def read_whole(file: IO[bytes], name: str) -> bytes:
    """Read all that a job may have; of what never ends, such as ``/dev/zero``, no more.

    Raises:
        UsageError: there is more.
    """
    data = file.read(DEFAULT_MAX_SERVER_PACKET_SIZE + 1)
    if len(data) > DEFAULT_MAX_SERVER_PACKET_SIZE:
        raise UsageError(f"{name} has more than {DEFAULT_MAX_SERVER_PACKET_SIZE} bytes, the limit of a job.")
    return data
