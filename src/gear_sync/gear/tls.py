"""TLS contexts of three files each: private key, certificate, certificates of the authorities."""

from __future__ import annotations

import ipaddress
import ssl

from gear_net import tls
from gear_net.tunnel import PeerCertificate

from .errors import ConfigurationError

__all__ = ["best_tls_version", "client_context", "create_ssl_context", "names_host", "server_context", "wants_tls"]


def best_tls_version() -> int:
    """Return the protocol that contexts are made for: the newest version that both sides know, 1.2 at least."""
    return ssl.PROTOCOL_TLS_CLIENT


def create_ssl_context() -> ssl.SSLContext:
    """Return a context for clients that verifies nothing yet."""
    context = ssl.SSLContext(best_tls_version())
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def wants_tls(key: str | None, cert: str | None, ca: str | None) -> bool:
    """Tell whether TLS is wanted: all three files are given, or none.

    Raises:
        ConfigurationError: only some are given; plain TCP in silence would be the worst of answers.
    """
    given = {"ssl_key": key, "ssl_cert": cert, "ssl_ca": ca}
    missing = [name for name, value in given.items() if not value]
    if missing and len(missing) < len(given):
        raise ConfigurationError(f"TLS needs ssl_key, ssl_cert and ssl_ca: without {' and '.join(missing)}")
    return not missing


def client_context(key: str | None, cert: str | None, ca: str | None, *, check_hostname: bool) -> ssl.SSLContext | None:
    """Return the context of a client that shows a certificate, and wants to see one of the authorities'.

    Args:
        key: file with the private key; None without TLS.
        cert: file with the certificate.
        ca: file with the certificates of the authorities.
        check_hostname: whether the server's certificate has to name the host.

    Raises:
        OSError: a file cannot be read.
        ConfigurationError: a file is not what it should be.
    """
    if not wants_tls(key, cert, ca):
        return None
    try:
        return tls.client_context(tls.TLS(cert, key, ca, check_hostname))
    except ValueError as error:
        raise _cause(error) from error


def server_context(key: str | None, cert: str | None, ca: str | None) -> ssl.SSLContext | None:
    """Return the context of a server that shows a certificate, and wants to see one of the authorities'.

    Args:
        key: file with the private key; None without TLS.
        cert: file with the certificate.
        ca: file with the certificates of the authorities.

    Raises:
        OSError: a file cannot be read.
        ConfigurationError: a file is not what it should be, or is missing although others are given.
    """
    if not wants_tls(key, cert, ca):
        return None
    try:
        return tls.server_context(tls.TLS(cert, key, ca))
    except ValueError as error:
        raise _cause(error) from error


def names_host(certificate: PeerCertificate, host: str) -> bool:
    """Tell whether a certificate names a host, or its address, as an alternative name (``subjectAltName``)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        wanted = host.rstrip(".").lower()
        names = {name.lower() for name in certificate.names}
        return wanted in names or f"*.{wanted.partition('.')[2]}" in names
    return any(ipaddress.ip_address(other.strip()) == address for other in certificate.addresses)


def _cause(error: ValueError) -> Exception:
    """Return the error of the system behind one, as programs expect it; or one that says the same."""
    cause = error.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        return cause
    return ConfigurationError(str(error))
