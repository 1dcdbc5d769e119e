"""A calibration comes back from its file as it was written; anything else is refused."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.site_calibration_file import (
    as_toml,
    check_numbers,
    check_site,
    read_site_calibration,
)
from pipeline.domain import ModelIdentity
from pipeline.errors import Rejected
from tests.models.site_calibrations import FIGURES, make_calibration

MODEL = ModelIdentity(name="net", version="1.0", sha256="a" * 64, execution_provider="CPU")
WHOLE = make_calibration(
    site='Hospital "South", 2nd floor',
    slope=1.25,
    offset=-0.75,
    made_from="reviews",
    leukemic_cells=0,
    before=replace(FIGURES, sensitivity=None),
    after=replace(FIGURES, sensitivity=None),
)


def written(folder: Path, text: str) -> Path:
    path = folder / "site-calibration.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("slope = 1.25", "slope = nan", "no finite number in slope"),
        ("slope = 1.25", "slope = true", "no finite number in slope"),
        ("offset = -0.75", "offset = inf", "no finite number in offset"),
        ("offset = -0.75", "", "lacks the key offset"),
        ("offset = -0.75", "offset = -0.75\nbias = 1", "unknown key 'bias'"),
        ("format = 1", "format = 2", "another format"),
        ("slope = 1.25", f"slope = 1{'0' * 400}", "OverflowError"),
        ("smears = 9", "smears = -1", "no count in smears"),
        ("smears = 9", f"smears = 1{'0' * 400}", "no count in smears"),
        ("smears = 9", "smears = 9\npatients = 3", "unknown key made_from.'patients'"),
        ('version = "1.0"', "version = 1.0", "no text in version"),
        ("made_on = 2026-11-28", 'made_on = "today"', "no date in made_on"),
        ("made_on = 2026-11-28", "made_on = 2026-11-28T10:00:00Z", "no date in made_on"),
        ('name = "net"', 'name = "net\\u001b[2J"', "no text in name"),
        ('kind = "reviews"', 'kind = "guess"', "made_from.kind"),
        ("[after]", "[afterwards]", "unknown key 'afterwards'"),
        ("format = 1", "format = ", "no TOML"),
        ("referred = 0.1", "", "lacks the key before.referred"),
        ("log_loss = 0.5", "log_loss = []", "no finite number in log_loss"),
        ("[model]", "[[model]]", "no table model"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    text = as_toml(WHOLE)
    assert old in text

    with pytest.raises(Rejected, match="alibrate again") as refusal:
        read_site_calibration(written(tmp_path, text.replace(old, new, 1)), MODEL)

    assert refusal.value.code == "calibration_unreadable"
    assert told in refusal.value.message


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"", b"\x00" * 40, b"\xef\xbb\xbf", b"a = " + b"[" * 60_000, b"#" * 70_000],
    ids=["utf16", "empty", "zeros", "bom", "deep", "long"],
)
def test_bytes_that_are_no_calibration_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site-calibration.toml"
    path.write_bytes(content)

    with pytest.raises(Rejected) as refusal:
        read_site_calibration(path, MODEL)

    assert refusal.value.code == "calibration_unreadable"


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read") as refusal:
        read_site_calibration(tmp_path / "none.toml", MODEL)

    assert refusal.value.code == "calibration_unreadable"


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(Rejected, match="is no file") as refusal:
            read_site_calibration(path, MODEL)

        assert refusal.value.code == "calibration_unreadable"


@pytest.mark.parametrize(
    ("slope", "offset"), [(0.2, 0.0), (5.0, 0.0), (1.0, 8.1), (1.0, -8.1), (-1.0, 0.0)]
)
def test_numbers_that_no_site_needs_are_refused(
    tmp_path: Path, slope: float, offset: float
) -> None:
    text = as_toml(replace(WHOLE, slope=slope, offset=offset))

    with pytest.raises(Rejected, match="slope") as refusal:
        read_site_calibration(written(tmp_path, text), MODEL)
    with pytest.raises(Rejected):
        check_numbers(slope, offset)

    assert refusal.value.code == "calibration_out_of_range"


@pytest.mark.parametrize("model", [replace(MODEL, version="1.1"), replace(MODEL, name="other")])
def test_a_calibration_of_another_network_is_refused(tmp_path: Path, model: ModelIdentity) -> None:
    path = written(tmp_path, as_toml(WHOLE))

    with pytest.raises(Rejected, match=r"made for net 1\.0") as refusal:
        read_site_calibration(path, model)

    assert refusal.value.code == "calibration_other_model"
    assert "alibrate again" in refusal.value.message


@pytest.mark.parametrize(
    "name", ["", " ", " St. Anna", "a" * 65, "two\nlines", "back\\slash", "bell\a", "tab\t", "Köln"]
)
def test_a_name_that_results_cannot_show_is_refused(name: str) -> None:
    with pytest.raises(Rejected) as refusal:
        check_site(name)

    assert refusal.value.code == "calibration_site"


def test_a_calibration_comes_back_with_the_hash_of_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, as_toml(WHOLE))

    found = read_site_calibration(path, MODEL)

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == replace(WHOLE, sha256=digest)


LETTERS = st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\")
names = st.text(LETTERS, min_size=1, max_size=64).filter(lambda one: one == one.strip())


@given(names, st.floats(0.21, 4.99), st.floats(-8, 8))
def test_every_name_and_number_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, site: str, slope: float, offset: float
) -> None:
    path = tmp_path_factory.mktemp("calibration") / "site-calibration.toml"
    calibration = replace(WHOLE, site=check_site(site), slope=slope, offset=offset)
    path.write_text(as_toml(calibration), encoding="utf-8")

    found = read_site_calibration(path, MODEL)

    assert (found.site, found.slope, found.offset) == (site, slope, offset)
