"""Manifests of data packs as spreadsheets and scripts write them: read, or refused with advice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from models.evaluation.pack import read_pack
from pipeline.errors import Rejected
from tests.models.evaluation.test_pack import GOOD, HEADER

TABLE = HEADER + GOOD
TAKEN: Mapping[str, bytes] = {
    "plain": TABLE.encode(),
    "with-a-byte-order-mark": TABLE.encode("utf-8-sig"),
    "with-carriage-returns": TABLE.replace("\n", "\r\n").encode(),
    "without-a-last-line-end": TABLE.rstrip("\n").encode(),
    "with-empty-lines": (TABLE + "\n\n").encode(),
    "with-quotes": (HEADER + GOOD.replace("a/1.png", '"a/1.png"')).encode(),
    "with-blanks": (HEADER + GOOD.replace(",cell,", ", cell ,")).encode(),
    "with-columns-of-its-own": TABLE.replace("sha256\n", "sha256,note\n")
    .replace(",0\n", ",0,seen twice\n")
    .encode(),
    "with-fewer-values-than-columns": (HEADER + GOOD.replace(",40,32,0", "")).encode(),
    "with-umlauts": (HEADER + GOOD.replace("a:1", "Müller")).encode(),
}


@pytest.mark.invented(kind=26)
@pytest.mark.parametrize("name", TAKEN)
def test_a_manifest_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(TAKEN[name])

    (row,) = read_pack(tmp_path, None)

    assert (row.file, row.kind, row.label, row.is_masked) == ("a/1.png", "cell", "leukemic", True)


REFUSED: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "are missing"),
    "separated-by-semicolons": (TABLE.replace(",", ";").encode(), "separated by commas"),
    "separated-by-tabs": (TABLE.replace(",", "\t").encode(), "separated by commas"),
    "in-latin-1": ((HEADER + GOOD.replace("a:1", "Müller")).encode("latin-1"), "UTF-8"),
    "in-utf-16": (TABLE.encode("utf-16"), "UTF-8"),
    "a-workbook": (b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0\xff\xfe" + bytes(40), "UTF-8|missing"),
    "with-zero-bytes": ((TABLE + "\0\n").encode(), "Set kind"),
    "with-more-values-than-columns": ((HEADER + GOOD.rstrip("\n") + ",1,2\n").encode(), "line 2"),
    "with-a-row-of-commas": ((TABLE + "," * 11 + "\n").encode(), "line 3"),
    "with-a-path-upwards": ((HEADER + GOOD.replace("a/1", "a/../../1")).encode(), "outside"),
}


@pytest.mark.invented(kind=26)
@pytest.mark.parametrize("name", REFUSED)
def test_a_manifest_is_refused_with_advice(name: str, tmp_path: Path) -> None:
    content, advice = REFUSED[name]
    (tmp_path / "manifest.csv").write_bytes(content)

    with pytest.raises(Rejected, match=advice) as caught:
        read_pack(tmp_path, None)

    assert caught.value.code == "pack_manifest"
