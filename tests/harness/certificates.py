"""Certificates for tests, made anew in each run."""

from __future__ import annotations

import datetime
import functools
import os
import tempfile
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gear_net.tls import TLS

__all__ = ["Authority", "authority", "copy_files", "replace_file", "replace_files"]


_HOUR = datetime.timedelta(hours=1)
_YEAR = datetime.timedelta(days=365)


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

    def issue_nameless(self, common_name: str, purpose: x509.ObjectIdentifier | None = None) -> TLS:
        """Issue a certificate without alternative names, as was usual until 2017, and return its files.

        Args:
            common_name: the common name of its subject.
            purpose: what alone it may be used for; None for any use.
        """
        signed_by = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(signed_by, ec.EllipticCurvePrivateKey)
        issuer = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes()).subject
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(issuer, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _HOUR)
            .not_valid_after(now + _YEAR)
        )
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        certificate = builder.sign(signed_by, hashes.SHA256())
        path = self._folder / f"{common_name}-nameless.pem"
        plain = serialization.NoEncryption()
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )
        return TLS(path, path, self.ca)

    def issue(
        self,
        name: str = "localhost",
        *,
        common_name: str | None = None,
        expired: bool = False,
        begins: datetime.datetime | None = None,
        ends: datetime.datetime | None = None,
    ) -> TLS:
        """Issue a certificate for a host, or for a client; return its files and that of the authority.

        Args:
            name: the host's or client's name.
            common_name: the common name of its subject.
            expired: whether it has ended long ago.
            begins: when it begins; in the past unless given.
            ends: when it ends; in the far future unless given.
        """
        if expired:
            ends = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
        issued = self._ca.issue_cert(name, common_name=common_name, not_before=begins, not_after=ends)
        base = self._folder / f"{name}-{common_name}-{begins}-{ends}".replace(" ", "-")
        certificate, key = base.with_suffix(".pem"), base.with_suffix(".key")
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return TLS(certificate, key, self.ca)


_folders: list[tempfile.TemporaryDirectory[str]] = []


def replace_files(old: TLS, new: TLS) -> None:
    """Put the files of a certificate in the place of another's, as the programs do that renew them."""
    for target, source in ((old.certificate, new.certificate), (old.key, new.key), (old.ca, new.ca)):
        if target is not None and source is not None:
            replace_file(target, source)


def replace_file(target: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Put a file in the place of another."""
    beside = Path(f"{os.fspath(target)}.new")
    beside.write_bytes(Path(source).read_bytes())
    beside.replace(target)


def copy_files(tls: TLS, folder: Path) -> TLS:
    """Copy the files of a certificate into a folder, where they may be replaced."""
    copied = TLS(folder / "own.pem", folder / "own.key", folder / "ca.pem", tls.check_host)
    replace_files(copied, tls)
    return copied


@functools.cache
def authority(name: str) -> Authority:
    """Return the authority of a name, the same one in all of the run."""
    folder = tempfile.TemporaryDirectory(prefix="certificates-")
    _folders.append(folder)  # removed with the process
    return Authority(Path(folder.name))
