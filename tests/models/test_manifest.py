"""A manifest is read whole or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.manifest import read_manifest
from pipeline.domain import CELL_TYPES
from pipeline.errors import Defect
from tests.models.conftest import manifest_text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[model", "cannot be read"),
        ("", "'policy' is missing"),
        (manifest_text(sha256="0").replace("sha256", "md5"), "'sha256' is missing"),
        (manifest_text(sha256="0", policy="refer_above = 0.5"), "'leukemic_from' is missing"),
        (
            manifest_text(
                sha256="0", policy="refer_above = 0.7\nleukemic_from = 0.6\nnovelty_limit = 1"
            ),
            "refer_above ≤ leukemic_from",
        ),
        (
            manifest_text(
                sha256="0", policy="refer_above = 'low'\nleukemic_from = 0.6\nnovelty_limit = 1"
            ),
            "wrong form",
        ),
        (
            "files = 3\n" + manifest_text(sha256="0").replace("[files.int8]", "[other]"),
            "wrong form",
        ),
    ],
)
def test_a_bad_manifest_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(Defect, match=reason) as refusal:
        read_manifest(path)

    assert refusal.value.code == "model_damaged"


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Defect, match="cannot be read"):
        read_manifest(tmp_path / "manifest.toml")


def test_a_good_manifest_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(manifest_text(sha256="abc"), encoding="utf-8")

    manifest = read_manifest(path)

    assert manifest.labels == tuple(CELL_TYPES)
    assert manifest.files["int8"].sha256 == "abc"
    assert manifest.policy.leukemic_from == 0.6
    assert manifest.policy.type_from == 0.5


def test_a_limit_for_types_that_no_probability_reaches_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    policy = "refer_above = 0.4\nleukemic_from = 0.6\nnovelty_limit = 1\ntype_from = 1.1"
    path.write_text(manifest_text(sha256="abc", policy=policy), encoding="utf-8")

    with pytest.raises(Defect, match="type_from"):
        read_manifest(path)
