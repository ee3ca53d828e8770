"""TLS for servers, clients and workers of both idioms: contexts from files, and reasons of failures.

An option ``tls`` takes a `TLS`, which names files, or a `ssl.SSLContext` that you have made yourself. `server_context`
and `client_context` turn either into a context, or say in one sentence why not: nothing ever falls back to plain TCP.

    >>> TLS(certificate="server.pem")
    Traceback (most recent call last):
        ...
    ValueError: the certificate server.pem is of no use without its key
"""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from .expiry import warn_of_expiry

__all__ = ["TLS", "ClientTLS", "client_context", "handshake_reason", "is_refusal", "reason", "server_context"]

_log = logging.getLogger(__name__)

_Path: TypeAlias = "str | os.PathLike[str]"

_CERTIFICATE: Final = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN TRUSTED CERTIFICATE-----")
_KEY: Final = (b"PRIVATE KEY-----",)
_NOT_TLS: Final = "it does not speak TLS"
_NO_CERTIFICATE: Final = "it has shown no certificate"
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,  # as newer versions of OpenSSL call it
    "HTTP_REQUEST": _NOT_TLS,
    "HTTPS_PROXY_REQUEST": _NOT_TLS,
    "UNKNOWN_PROTOCOL": _NOT_TLS,
    "UNSUPPORTED_PROTOCOL": "it speaks too old a version of TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _NO_CERTIFICATE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired for it",
}
_REFUSALS: Final = frozenset(  # the alerts of a server that does not finish the handshake because of a certificate
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)


@dataclass(frozen=True, slots=True)
class TLS:
    """The files of TLS connections, in PEM form.

    The files are read when a server, client or worker is created. Clients and workers read them again when they connect
    and a file has changed, servers when you call `reload_tls`.

    ``TLS()`` is for a client that trusts the authorities of the system. ``TLS(certificate=..., key=...)`` is for a
    server; with ``ca``, the server also verifies its clients. With all three, a client presents its certificate.

    Attributes:
        certificate: your own certificate, followed by the intermediate certificates; None for none.
        key: its private key, not encrypted; may be the same file.
        ca: certificates of the authorities that verify the other side. None means those of the system for a client, and
            no verification of clients for a server.
        check_host: whether a client checks that the server's certificate is for the host name that it connects to, as
            an alternative name (``subjectAltName``).

    Raises:
        ValueError: there is a certificate without a key, or a key without a certificate.
    """

    certificate: _Path | None = None
    key: _Path | None = None
    ca: _Path | None = None
    check_host: bool = True

    def __post_init__(self) -> None:
        """Check that certificate and key come together."""
        if self.key is None and self.certificate is not None:
            raise ValueError(f"the certificate {os.fspath(self.certificate)} is of no use without its key")
        if self.certificate is None and self.key is not None:
            raise ValueError(f"the key {os.fspath(self.key)} is of no use without its certificate")


def server_context(tls: TLS | ssl.SSLContext) -> ssl.SSLContext:
    """Return a context for a server: TLS 1.2 or later, and verified clients if there is a ``ca``.

    Args:
        tls: the files; a context is returned as it is.

    Raises:
        TypeError: it is neither.
        ValueError: there is no certificate, or a file cannot be used.
    """
    if isinstance(tls, ssl.SSLContext):
        if tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError("a TLS context for clients cannot be used by a server")
        return tls
    _check_type(tls)
    if tls.certificate is None:
        raise ValueError("a server needs a certificate and its key for TLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION  # a peer could make the server sign without end
    # Tickets that a client has not read when it closes make its system throw away what it has sent last.
    context.num_tickets = 0
    _load(context, tls)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: TLS | ssl.SSLContext) -> ssl.SSLContext:
    """Return a context for a client or worker: TLS 1.2 or later, with the server's certificate and host name verified.

    Args:
        tls: the files; a context is returned as it is.

    Raises:
        TypeError: it is neither.
        ValueError: a file cannot be used.
    """
    if isinstance(tls, ssl.SSLContext):
        if tls.protocol == ssl.PROTOCOL_TLS_SERVER:
            raise ValueError("a TLS context for servers cannot be used by a client or worker")
        return tls
    _check_type(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = tls.check_host
    context.hostname_checks_common_name = False  # as browsers, curl and RFC 9525: only alternative names name a host
    _load(context, tls)
    if tls.ca is None:
        context.load_default_certs()
    return context


class ClientTLS:
    """The context for new connections of a client or worker.

    Files are read again when they have changed, so that renewed certificates need no restart. If the new files cannot
    be used, as in the middle of a renewal, this is logged, and the previous ones stay in use.
    """

    def __init__(self, tls: TLS | ssl.SSLContext) -> None:
        """Read the files.

        Args:
            tls: the files; or a context, which is used as it is.

        Raises:
            TypeError: it is neither.
            ValueError: a file cannot be used.
        """
        self._files = tls if isinstance(tls, TLS) else None
        self._versions = _versions(self._files)  # before they are read: a change in between is noticed next time
        self._refused: object = None
        self._context = client_context(tls)
        self._look_at_expiry()

    def context(self) -> ssl.SSLContext:
        """Return the context for a connection that begins now."""
        versions = _versions(self._files)
        if self._files is not None and versions != self._versions:
            try:
                self._context = client_context(self._files)
            except ValueError as error:  # the files may be half written; the context before stays in use
                if versions != self._refused:
                    _log.warning("%s; the previous files stay in use", error)
                self._refused = versions
            else:
                self._versions = versions
                self._look_at_expiry()
        return self._context

    def _look_at_expiry(self) -> None:
        if self._files is not None:
            warn_of_expiry(self._files.certificate, self._files.key, server_side=False)


def _versions(tls: TLS | None) -> list[tuple[int, ...] | None]:
    """Return what differs once a file has been written or replaced; None for a file that is not there."""
    paths = () if tls is None else (tls.certificate, tls.key, tls.ca)
    return [None if path is None else _version(path) for path in paths]


def _version(path: _Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_type(tls: object) -> None:
    if not isinstance(tls, TLS):
        raise TypeError(f"tls takes a TLS or a ssl.SSLContext, not a {type(tls).__name__}")


def _load(context: ssl.SSLContext, tls: TLS) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca is not None:
        _check_file("CA", tls.ca, _CERTIFICATE, "certificate")
        try:
            context.load_verify_locations(tls.ca)
        except OSError as error:
            raise ValueError(f"the CA {os.fspath(tls.ca)} cannot be used: {reason(error)}") from error
    if tls.certificate is not None and tls.key is not None:
        _check_file("certificate", tls.certificate, _CERTIFICATE, "certificate")
        _check_file("key", tls.key, _KEY, "private key")
        key = os.fspath(tls.key)

        def no_password() -> NoReturn:  # or OpenSSL would ask on the terminal
            raise ValueError(f"the key {key} is encrypted")

        try:
            context.load_cert_chain(tls.certificate, tls.key, no_password)
        except OSError as error:
            names = f"the certificate {os.fspath(tls.certificate)}", f"the key {key}"
            if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
                raise ValueError(f"{names[1]} does not belong to {names[0]}") from error
            raise ValueError(f"{names[0]} with {names[1]} cannot be used: {reason(error)}") from error


def _check_file(what: str, path: _Path, marks: tuple[bytes, ...], content: str) -> None:
    """Find the usual mistakes, of which OpenSSL says neither the file nor the reason."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(f"the {what} {os.fspath(path)} cannot be read: {error.strerror}") from error
    if not any(mark in data for mark in marks):
        raise ValueError(f"the {what} {os.fspath(path)} has no {content} in PEM form")


def reason(error: OSError) -> str:
    """Return in a few words why a TLS connection failed, for a message that names the other side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLEOFError):
        return "it has gone without a word"
    if isinstance(error, ssl.SSLError) and error.reason is not None:
        return _REASONS.get(error.reason) or error.reason.lower().replace("_", " ")
    text = error.strerror or str(error)
    return "a file is damaged" if "PEM lib" in text else text


def is_refusal(error: object) -> bool:
    """Tell whether the other side has refused our certificate, or wants one that we have not presented."""
    return isinstance(error, ssl.SSLError) and error.reason in _REFUSALS


def handshake_reason(error: OSError) -> str:
    """Return in a few words why a server could not be reached over TLS; without TLS, it may just hang up."""
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return "it has closed the connection in the handshake, and may not speak TLS"
    return reason(error)
