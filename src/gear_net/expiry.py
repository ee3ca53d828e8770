"""Warns before your own certificate expires, so that you learn of it before the other side refuses it."""

from __future__ import annotations

import logging
import os
import ssl
import time
from typing import Final, TypeAlias

from .tunnel import Tunnel

__all__ = ["warn_of_expiry"]

_log = logging.getLogger(__name__)

_Path: TypeAlias = "str | os.PathLike[str]"

_DAY: Final = 86400  # seconds
_SOON: Final = 14 * _DAY


def warn_of_expiry(certificate: _Path | None, key: _Path | None, *, server_side: bool) -> None:
    """Log a warning if a certificate has expired, is not valid yet, or expires within 14 days.

    Args:
        certificate: a file that `ssl.SSLContext.load_cert_chain` takes; None for no certificate.
        key: the file with its key.
        server_side: whether this is the certificate of a server, not of a client or worker.
    """
    if certificate is None or key is None:
        return
    try:
        not_after = _not_after(certificate, key, server_side=server_side)
    except OSError as error:
        why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error
        _log.warning("the certificate %s is of no use: %s", os.fspath(certificate), why)
        return
    left = not_after - time.time()
    if left < _SOON:
        date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(not_after))
        _log.warning("the certificate %s expires in %.1f days, at %s", os.fspath(certificate), left / _DAY, date)


def _not_after(certificate: _Path, key: _Path, *, server_side: bool) -> int:
    """Return when a certificate ends, in seconds since the epoch.

    `ssl` tells the fields of a certificate only at the end of a handshake, and only if it has found it good. So the
    certificate is shown here, in memory, to a side that trusts this very certificate.

    Raises:
        OSError: it has expired, or is not valid yet, or not for this side of a connection; or a file is being replaced.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    server.load_cert_chain(certificate, key)  # a server needs one in any case
    if not server_side:
        client.load_cert_chain(certificate, key)
    other = client if server_side else server
    other.load_verify_locations(certificate)
    other.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust the certificate itself, without its issuer
    other.verify_mode = ssl.CERT_REQUIRED
    ends = Tunnel(client), Tunnel(server, server_side=True)
    while not all(end.established for end in ends):
        ends[1].receive(ends[0].data_to_send())
        ends[0].receive(ends[1].data_to_send())
    shown = ends[0 if server_side else 1].peer_certificate()
    assert shown is not None
    return shown.not_after
