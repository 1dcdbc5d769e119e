"""A model folder of a few kilobytes with a true manifest: the whole service runs on it in tests."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.models.conftest import TINY, manifest_text


def write_tiny_model(folder: Path) -> Path:
    """manifest.toml beside tiny.onnx in `folder`, all of it in order."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TINY, folder / TINY.name)
    digest = hashlib.sha256(TINY.read_bytes()).hexdigest()
    (folder / "manifest.toml").write_text(manifest_text(sha256=digest), encoding="utf-8")
    return folder
