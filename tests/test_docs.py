"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ROOMS = ("config", "listener", "models", "pipeline", "reporting")
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])


def test_every_code_of_the_operations_guide_is_raised_somewhere() -> None:
    guide = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = guide.partition("## Parked work")[2].partition("##")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    codes = {code for cell in first_cells for code in re.findall(r"`([a-z0-9_]+)`", cell)}
    sources = "".join(
        path.read_text(encoding="utf-8")
        for room in ROOMS
        for path in (CHECKOUT / room).rglob("*.py")
    )

    assert len(codes) > 10
    assert {code for code in codes if f'"{code}"' not in sources} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_link_that_a_document_names_exists(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        pytest.skip("a changelog names files of its time")
    text = document.read_text(encoding="utf-8")
    files = re.findall(rf"`((?:{'|'.join((*ROOMS, 'tests', 'docs'))})/[\w/.-]+\.\w+)`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text) if "://" not in link]

    missing = [name for name in files if not (CHECKOUT / name).exists()]
    missing += [link for link in links if not (document.parent / link).exists()]

    assert missing == []
