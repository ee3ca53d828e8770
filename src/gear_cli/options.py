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
"""Longest time in seconds that an option may ask for, about 30 years."""

DEFAULT_SERVER: Final = "127.0.0.1:4730"
SERVERS_VARIABLE: Final = "GEAR_SERVERS"

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


STDIN: Final = "\0"
"""Stands for the word ``-`` of ``gear submit``, which cyclopts takes for an option. No argument can have this value."""


Servers = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--server", "-s"],
        show_default=False,
        help="A job server: host, host:port or unix:PATH. Repeat the option, or separate servers by commas. Without "
        f"it, the environment variable {SERVERS_VARIABLE} names the servers, separated by commas or spaces. The "
        f"default is {DEFAULT_SERVER}.",
    ),
]


def seconds(limit: float) -> Parameter:
    """Return a parameter that accepts a time of more than 0 and up to ``limit`` seconds."""

    def check(_type: Any, value: float | None) -> None:
        if value is not None and not 0 < value <= limit:  # which is also false for nan
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
        help="Use TLS; the other TLS options imply it.",
    ),
]
TlsCa = Annotated[
    Path | None,
    Parameter(
        name="--tls-ca",
        group=_TLS,
        help="PEM file with the CA certificates that verify the servers; those of the system by default.",
    ),
]
TlsCertificate = Annotated[
    Path | None,
    Parameter(name="--tls-certificate", group=_TLS, help="PEM file with your own certificate."),
]
TlsKey = Annotated[
    Path | None, Parameter(name="--tls-key", group=_TLS, help="PEM file with the private key of the certificate.")
]

Verbose = Annotated[
    int,
    Parameter(
        name=["--verbose", "-v"],
        count=True,
        show_default=False,
        help="Log to stderr what happens, with -vv in detail. By default, only warnings are logged.",
    ),
]


def server_addresses(servers: Sequence[str]) -> list[Address]:
    """Read the option ``--server``, or the environment variable if it is not given.

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
    """Return the addresses in a variable, separated by commas or spaces; none if it is unset or empty.

    Raises:
        UsageError: the variable was set by Kubernetes for a Service, and not for this program.
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
        handler: what writes to stderr; by default one that blocks while stderr is not read.
        tracebacks: whether to log the traceback of an exception.
    """
    level = _LEVELS[min(verbose, len(_LEVELS) - 1)]
    written = handler or logging.StreamHandler()
    written.setFormatter(_Formatter(tracebacks))
    logging.basicConfig(level=level, handlers=[written])


class _Formatter(logging.Formatter):
    """Writes each record in one line, and escapes what peers have put into it, for the terminal's sake."""

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
    """Read a whole file, but no more than fits into a job: a file such as ``/dev/zero`` never ends.

    Raises:
        UsageError: the file is larger.
    """
    data = file.read(DEFAULT_MAX_SERVER_PACKET_SIZE + 1)
    if len(data) > DEFAULT_MAX_SERVER_PACKET_SIZE:
        raise UsageError(f"{name} has more than {DEFAULT_MAX_SERVER_PACKET_SIZE} bytes, the limit of a job.")
    return data
