"""SECURITY.md names tests, files and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
POLICY = (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_file_that_is_linked_exists() -> None:
    linked = re.findall(r"\]\(([^)]+)\)", POLICY)

    assert [name for name in linked if not (CHECKOUT / name).exists()] == []
    assert len(linked) > 20


def test_every_make_target_exists() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([a-z-]+)", POLICY))

    assert {name for name in targets if not re.search(rf"^{name}:", makefile, re.M)} == set()


def test_every_setting_is_one() -> None:
    default = (CHECKOUT / "config" / "default.toml").read_text(encoding="utf-8")
    named = re.findall(r"`(?:dicom|web|retention)\.([a-z_]+)`", POLICY)

    assert [key for key in named if f"{key} = " not in default] == []
