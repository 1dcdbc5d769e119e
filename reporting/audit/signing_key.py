"""The site's audit key: signs checkpoints, and turns accession numbers into keyed hashes.

One Ed25519 key (RFC 8032) in a PEM file of mode 0600. Its public half lies beside it as `.pub`;
a copy of that kept elsewhere is what makes the trail checkable by others.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pipeline.errors import Rejected
from reporting.durable_files import write_synced
from reporting.secret_files import clear_drafts, draft_of, make_key_file


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuditKey:
    """The secret of the site. Its parts never appear in a repr."""

    private: Ed25519PrivateKey
    accession_key: bytes

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> AuditKey:
        """Derive the key for accession numbers from the one that signs (RFC 5869)."""
        secret = private.private_bytes_raw()
        derive = HKDF(hashes.SHA256(), length=32, salt=None, info=b"smearlink accession")
        return cls(private=private, accession_key=derive.derive(secret))

    @property
    def public(self) -> Ed25519PublicKey:
        """The public half."""
        return self.private.public_key()

    def sign(self, message: bytes) -> str:
        """The signature in hex."""
        return self.private.sign(message).hex()

    def accession_hash(self, accession: str) -> str:
        """HMAC-SHA-256 of an accession number: the same here, meaningless elsewhere."""
        return hmac.new(self.accession_key, accession.encode(), hashlib.sha256).hexdigest()


def key_id(public: Ed25519PublicKey) -> str:
    """A short name of a public key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def is_signed(message: bytes, signature: str, public: Ed25519PublicKey) -> bool:
    """Whether `signature` (hex) is that of `message`."""
    try:
        public.verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_path(key_file: Path) -> Path:
    """The path of the public half of a key file."""
    return key_file.with_name(f"{key_file.name}.pub")


def load_or_make_key(key_file: Path) -> AuditKey:
    """Read the site's key, making it first if there is none; Rejected when it is not usable."""
    make_key_file(key_file, _new_key)
    if key_file.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP):
        raise Rejected(
            f"The audit key {key_file} can be read or changed by others; run chmod 600 on it.",
            code="audit_key_exposed",
        )
    try:
        private = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError) as err:
        raise Rejected(
            f"The audit key {key_file} is not an unencrypted PEM private key; restore it from a "
            "copy, or move it away for a new one (checkpoints then need the old public key).",
            code="audit_key_unreadable",
        ) from err
    if not isinstance(private, Ed25519PrivateKey):
        raise Rejected(
            f"The audit key {key_file} is not an Ed25519 key; move it away for a new one.",
            code="audit_key_unreadable",
        )
    _keep_public_half(public_path(key_file), private.public_key())
    return AuditKey.of(private)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key (PEM); Rejected when there is none or it is of another kind."""
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as err:
        raise Rejected(
            f"There is no public audit key in {path}; name the .pub file of the site's key.",
            code="audit_key_unreadable",
        ) from err
    if not isinstance(public, Ed25519PublicKey):
        raise Rejected(f"{path} does not hold an Ed25519 key.", code="audit_key_unreadable")
    return public


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _keep_public_half(path: Path, public: Ed25519PublicKey) -> None:
    """Write it if it is missing: the process that made the key may have been killed before.

    A key on a read-only mount stays usable without; `audit verify` then asks for the public one.
    """
    if not path.exists():
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        draft = draft_of(path)
        with contextlib.suppress(OSError):
            write_synced(draft, pem, mode=0o644)
            draft.replace(path)
    if path.exists():
        clear_drafts(path)
