"""A model folder of a few kilobytes with a true manifest, for tests that may damage it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from pipeline.domain import CELL_TYPES

TINY = Path(__file__).with_name("tiny.onnx")


def manifest_text(*, sha256: str, labels: tuple[str, ...] = CELL_TYPES, policy: str = "") -> str:
    """A manifest that names tiny.onnx as the int8 model."""
    quoted = ", ".join(f'"{label}"' for label in labels)
    policy = policy or "refer_above = 0.4\nleukemic_from = 0.6\nnovelty_limit = 0.5"
    return (
        f'[model]\nname = "tiny"\nversion = "1.0.0"\nlabels = [{quoted}]\n\n'
        f'[files.int8]\nname = "tiny.onnx"\nsha256 = "{sha256}"\n\n[policy]\n{policy}\n'
    )


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """manifest.toml beside tiny.onnx, all of it in order."""
    shutil.copy(TINY, tmp_path / "tiny.onnx")
    digest = hashlib.sha256(TINY.read_bytes()).hexdigest()
    (tmp_path / "manifest.toml").write_text(manifest_text(sha256=digest), encoding="utf-8")
    return tmp_path
