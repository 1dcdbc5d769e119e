"""The site's key is made once, kept from others, and refused when it is not usable."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import Rejected
from reporting.audit.signing_key import is_signed, load_or_make_key, public_path, read_public_key


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key_file = tmp_path / "audit.key"
    load_or_make_key(key_file)
    key_file.chmod(0o644)

    with pytest.raises(Rejected, match="chmod 600"):
        load_or_make_key(key_file)


@pytest.mark.parametrize("kind", ["nothing", "text", "other key"])
def test_what_is_no_ed25519_key_is_refused(tmp_path: Path, kind: str) -> None:
    key_file = tmp_path / "audit.key"
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_file.write_bytes({"nothing": b"", "text": b"hello", "other key": other}[kind])
    key_file.chmod(0o600)

    with pytest.raises(Rejected, match=r"audit\.key"):
        load_or_make_key(key_file)


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pub").write_text("hello")

    for path in (tmp_path / "text.pub", tmp_path / "absent.pub", tmp_path):
        with pytest.raises(Rejected):
            read_public_key(path)


def test_a_public_half_that_a_kill_prevented_is_written_at_the_next_start(tmp_path: Path) -> None:
    key_file = tmp_path / "audit.key"
    made = load_or_make_key(key_file)
    public_path(key_file).unlink()

    load_or_make_key(key_file)

    public = read_public_key(public_path(key_file))
    assert is_signed(b"line", made.sign(b"line"), public)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.key", "audit.key.pub"]


def test_a_key_is_made_once_readable_by_its_owner_only(tmp_path: Path) -> None:
    key_file = tmp_path / "keys" / "audit.key"

    first, second = load_or_make_key(key_file), load_or_make_key(key_file)

    assert key_file.stat().st_mode & 0o777 == 0o600
    assert first.accession_key == second.accession_key
    assert sorted(path.name for path in key_file.parent.iterdir()) == ["audit.key", "audit.key.pub"]


def test_the_public_half_checks_what_the_private_half_signed(tmp_path: Path) -> None:
    key = load_or_make_key(tmp_path / "audit.key")
    public = read_public_key(public_path(tmp_path / "audit.key"))

    signature = key.sign(b"message")

    assert is_signed(b"message", signature, public)
    assert not is_signed(b"massage", signature, public)
    assert not is_signed(b"message", "zz", public)


def test_a_key_never_shows_itself(tmp_path: Path) -> None:
    key = load_or_make_key(tmp_path / "audit.key")

    assert key.accession_key.hex() not in repr(key)
    assert repr(key.accession_key) not in repr(key)
