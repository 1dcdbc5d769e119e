"""The bytes of a packaged network, refused when they are not those that its description names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import Defect


def read_checked(path: Path, sha256: str, *, whose: str, damaged: Callable[[str], Defect]) -> bytes:
    """The file's bytes; raises what `damaged` makes of the reason when it is missing or differs.

    `whose` is the sha256 in words, for the reason: "the manifest's".
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise damaged(f"{path.name} cannot be read ({type(err).__name__})") from err
    if hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(f"the sha256 of {path.name} is not {whose}")
    return content
