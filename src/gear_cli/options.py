"""What the commands share: options, exit codes, and how they end early."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Group, Parameter

from gear_sync.tls import TLS
from gearproto.addresses import Address, parse_addresses

__all__ = [
    "DEFAULT_SERVERS",
    "STDIN",
    "Exit",
    "Failure",
    "Flag",
    "Servers",
    "TlsCa",
    "TlsCertificate",
    "TlsFlag",
    "TlsKey",
    "UsageError",
    "Verbose",
    "client_tls",
    "log_to_stderr",
    "read_file",
    "reason",
    "server_addresses",
]

DEFAULT_SERVERS: Final = ("127.0.0.1:4730",)

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


STDIN: Final = "\0"
"""What the word ``-`` of ``gear submit`` is handed on as: cyclopts takes it for an option. No argument can be this."""


class Exit(IntEnum):
    """The exit codes, the same for every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    TIMEOUT = 4
    INTERRUPTED = 130  # as shells say it of SIGINT
    BROKEN_PIPE = 141  # as shells say it of SIGPIPE


class Failure(Exception):
    """The command cannot do what it was asked for; the message is one sentence for people.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        """Store the message and the exit code."""
        super().__init__(message)
        self.code = code


class UsageError(Failure):
    """The command line makes no sense, or names a file that cannot be used."""

    def __init__(self, message: str) -> None:
        """Store the message."""
        super().__init__(message, Exit.USAGE)


def _by_commas(_hint: Any, value: str, *, delimiter: str | None = None) -> list[str]:  # noqa: ARG001
    """Part the value of an environment variable; the signature is cyclopts'."""
    return [part.strip() for part in value.split(",")]


Servers = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--server", "-s"],
        env_var="GEAR_SERVERS",
        env_var_split=_by_commas,
        show_default=",".join,
        help="A job server, as host or host:port; give the option once for each server.",
    ),
]

Flag = Annotated[bool, Parameter(show_default=False)]

_TLS: Final = Group.create_ordered("TLS")

TlsFlag = Annotated[
    bool,
    Parameter(
        name="--tls",
        group=_TLS,
        show_default=False,
        help="Speak TLS with the servers; one of the other options of TLS says so as well.",
    ),
]
TlsCa = Annotated[
    Path | None,
    Parameter(
        name="--tls-ca",
        group=_TLS,
        help="File with certificates of the authorities that the servers' come from; the system's unless given.",
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
        help="Log to stderr what happens, with -vv in every detail; only warnings are logged otherwise.",
    ),
]


def server_addresses(servers: Sequence[str]) -> list[Address]:
    """Read the option ``--server``.

    Raises:
        UsageError: one of them is no address.
    """
    try:
        return parse_addresses(servers)
    except ValueError as error:
        raise UsageError(f"{error}.") from error


def client_tls(tls: bool, ca: Path | None, certificate: Path | None, key: Path | None) -> TLS | None:
    """Read the options of TLS.

    Raises:
        ValueError: a certificate comes without a key.
    """
    return TLS(certificate=certificate, key=key, ca=ca) if tls or ca or certificate or key else None


def log_to_stderr(verbose: int, handler: logging.Handler | None = None) -> None:
    """Log what the option ``--verbose`` asks for.

    Args:
        verbose: the option.
        handler: what writes to stderr; one that waits until it can unless given.
    """
    level = _LEVELS[min(verbose, len(_LEVELS) - 1)]
    handlers = [handler or logging.StreamHandler()]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", handlers=handlers)


def reason(error: OSError) -> str:
    """Say in a few words what an error of the system is."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def read_file(path: Path) -> bytes:
    """Read a file that the command line names.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}.") from error
