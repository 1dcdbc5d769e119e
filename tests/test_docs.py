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


def test_every_known_fault_is_held_down_by_tests_that_exist() -> None:
    table = (CHECKOUT / "docs" / "known-faults.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:5] for line in table.splitlines() if re.match(r"\| \d", line)]

    assert [int(number) for number, *_ in rows] == list(range(1, 28))
    for _, _, commits, tests in rows:
        assert re.fullmatch(r"[0-9a-f]{7}(, [0-9a-f]{7})*", commits.strip())
        named = re.findall(r"`([^`]+)`", tests)
        assert named
        assert [one for one in named if not _is_a_test(one)] == []


def _is_a_test(named: str) -> bool:
    """Whether the file is there and defines the function or class behind the colons."""
    file, _, test = named.partition("::")
    if not (CHECKOUT / file).is_file():
        return False
    content = (CHECKOUT / file).read_text(encoding="utf-8")
    return test in re.findall(r"(?:def|class) (test_\w+|Test\w+)", content)
