"""Certificates for tests, made anew in each run."""

from __future__ import annotations

import datetime
import functools
import tempfile
from pathlib import Path

import trustme

from gear_sync.tls import TLS

__all__ = ["Authority", "authority"]


class Authority:
    """An authority that issues certificates.

    Attributes:
        ca: file with its own certificate.
    """

    def __init__(self, folder: Path) -> None:
        """Make one; its files go into a folder."""
        self._ca = trustme.CA()
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, name: str = "localhost", *, common_name: str | None = None, expired: bool = False) -> TLS:
        """Issue a certificate for a host, or for a client; return its files and that of the authority."""
        end = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC) if expired else None
        issued = self._ca.issue_cert(name, common_name=common_name, not_after=end)
        base = self._folder / f"{name}-{common_name}-{expired}"
        certificate, key = base.with_suffix(".pem"), base.with_suffix(".key")
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return TLS(certificate, key, self.ca)


_folders: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def authority(name: str) -> Authority:
    """Return the authority of a name, the same one in all of the run."""
    folder = tempfile.TemporaryDirectory(prefix="certificates-")
    _folders.append(folder)  # removed with the process
    return Authority(Path(folder.name))
