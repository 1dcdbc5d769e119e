"""A certificate authority for tests: issues PEM files for servers and clients on loopback."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from reporting.delivery.transport.tls import TlsFiles

LIFE = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Its key stays in memory; its certificate is a file."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def ca_certificates(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, common_name: str, *, life: timedelta = LIFE) -> TlsFiles:
        """A certificate for `common_name`, localhost and 127.0.0.1; a second call renews it."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        certificate = (
            _builder(common_name, self.certificate.subject, key.public_key(), life)
            .add_extension(alternative, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        key_file = self.folder / f"{common_name}.key"
        certificate_file = self.folder / f"{common_name}.pem"
        key_file.write_bytes(pem_of(key))
        certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        return TlsFiles(
            certificate=certificate_file,
            private_key=key_file,
            ca_certificates=self.ca_certificates,
        )


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def make_authority(folder: Path, name: str = "Test CA") -> Authority:
    """A new authority that keeps its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    certificate = (
        _builder(name, subject, key.public_key(), LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # Python 3.13 checks what RFC 5280 4.2.1 asks of authorities.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(folder=folder, key=key, certificate=certificate)
    authority.ca_certificates.write_bytes(certificate.public_bytes(Encoding.PEM))
    return authority


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The unencrypted PKCS #8 form."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(
    common_name: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(common_name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFE - abs(life))
        .not_valid_after(now + life)
    )


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
