"""Whatever the service makes in its data folder is for its owner alone, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

from tests.acceptance.serving import port_of, served, until_idle
from tests.builders import build_image
from tests.listener.peers import store


def test_no_file_or_folder_of_the_data_folder_is_open_to_others(tmp_path: Path) -> None:
    folder = {"name": "disk", "type": "folder", "path": str(tmp_path / "out")}
    umask = os.umask(0o022)
    try:
        with served(tmp_path, [folder]) as running:
            assert store(port_of(running), build_image())[0].Status == 0
            until_idle(running)
            made = [path for path in (tmp_path / "data").rglob("*") if path.suffix != ".pub"]
            modes = {path.relative_to(tmp_path): path.stat().st_mode & 0o077 for path in made}
    finally:
        os.umask(umask)

    assert [path for path, mode in modes.items() if mode] == []
    assert len(modes) > 10
