"""What each output of a smear says, read back as numbers: to hold them against each other."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any

from pydicom import Dataset

from pipeline.domain import Call, CellType, SmearFindings
from pipeline.rendering import gallery_summary
from pipeline.rendering.gallery import compose_gallery
from pipeline.rendering.pen import Pen
from reporting.results import Result, ResultKind
from tests.reporting.made import read
from tests.reporting.pdf_reader import printed_text

LEAST_CELLS = 4
"""From so many counted cells on the outputs give percentages."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one output says: cells found, counted, referred, apart; the differential."""

    found: int
    counted: int
    referred: int
    apart: int
    differential: Mapping[str, int]


def expected(smear: SmearFindings) -> Counts:
    cells = [one for field in smear.fields for one in field.cells]
    referred = sum(one.call is Call.REFERRED for one in cells)
    return Counts(
        found=len(cells),
        counted=smear.white_cells_counted,
        referred=referred,
        apart=len(cells) - referred - smear.white_cells_counted,
        differential=_without_zeros(
            Counter(
                "blast" if one.call is Call.LEUKEMIC else str(one.cell_type).replace("_", " ")
                for one in cells
                if one.call is Call.LEUKEMIC
                or (one.call is Call.NORMAL and one.cell_type not in NOT_COUNTED)
            )
        ),
    )


NOT_COUNTED = {
    CellType.PLATELET,
    CellType.ERYTHROBLAST,
    CellType.SMUDGE_CELL,
    CellType.UNDETERMINED,
}


def _without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    return {word: count for word, count in counts.items() if count}


def in_table(content: bytes) -> Counts:
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    buckets = Counter(row["bucket"] for row in rows)
    differential = Counter(
        "blast" if row["call"] == "leukemic" else row["finding"]
        for row in rows
        if row["bucket"] == "counted"
    )
    return Counts(
        found=len(rows),
        counted=buckets["counted"],
        referred=buckets["referred"],
        apart=buckets["undetermined"] + buckets["not_leukocyte"],
        differential=_without_zeros(differential),
    )


def in_bundle(content: bytes) -> Counts:
    observations = {
        made["code"]["text"]: made
        for entry in json.loads(content)["entry"]
        if (made := entry["resource"])["resourceType"] == "Observation"
    }
    numbers = {text: made.get("valueInteger", 0) for text, made in observations.items()}
    counts = {
        _word(text): part["valueInteger"]
        for text, made in observations.items()
        for part in made.get("component", ())
        if part["code"]["text"] in ("Cells seen", "Cells called leukemic")
    }
    return _counts(numbers, counts)


def in_message(content: bytes) -> Counts:
    numbers: dict[str, int] = {}
    counts: dict[str, int] = {}
    title = ""
    for line in content.decode().split("\r"):
        obx = line.split("|")
        if obx[0] != "OBX":
            continue
        words = obx[3].split("^")[1]
        if words in ("Cells seen", "Cells called leukemic"):
            counts[_word(title)] = int(obx[5])
        elif obx[2] == "NM" and obx[6].startswith("{cells}"):
            numbers[words] = int(obx[5])
        if "/Leukocytes" in words:
            title = words
    return _counts(numbers, counts)


def in_pdf(content: bytes) -> Counts:
    words = printed_text(content)
    numbers = {
        title: int(found[1])
        for title in TITLES
        if (found := re.search(rf"{re.escape(title)}: (\d+)", words))
    }
    table = words.split("Differential", 1)[1].split("White cells counted", 1)[0]
    rows = re.findall(r"([A-Z][a-z ]+)s/Leukocytes in Blood (\d+)", table)
    return _counts(numbers, {_word(title): int(count) for title, count in rows})


TITLES = (
    "Cells found",
    "White cells counted on the smear",
    "Cells referred to an expert",
    "Cells of undetermined type, in no percentage",
    "Erythroblasts found, in no percentage",
    "Platelets found, in no percentage",
    "Smudge cells found, in no percentage",
)


def _word(title: str) -> str:
    return title.split("/")[0].removesuffix("s").lower()


def _counts(numbers: Mapping[str, int], differential: Mapping[str, int]) -> Counts:
    found, counted, referred, *apart = (numbers.get(title, 0) for title in TITLES)
    return Counts(found, counted, referred, sum(apart), _without_zeros(differential))


def in_structured_report(report: Dataset) -> Counts:
    [group] = [
        item
        for item in _items(report)
        if item.ValueType == "CONTAINER"
        and any(_name(one) == "Cells found" for one in item.get("ContentSequence", ()))
    ]
    numbers = {
        _name(item): int(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM" and "share" not in _name(item).lower()
    }
    differential = {
        name.removesuffix(", count").lower(): count
        for name, count in numbers.items()
        if name.endswith(", count")
    }
    apart = ("Cells of undetermined type", "Erythroblasts", "Platelets taken for cells")
    smudges = numbers.get("Smudge cells", 0)
    return Counts(
        found=numbers["Cells found"],
        counted=numbers["White cells counted"],
        referred=numbers["Cells referred to an expert"],
        apart=sum(numbers[name] for name in apart) + smudges,
        differential=_without_zeros(differential),
    )


def _items(dataset: Dataset) -> list[Dataset]:
    found: list[Dataset] = []
    for item in dataset.get("ContentSequence", ()):
        found += [item, *_items(item)]
    return found


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeMeaning) if names else ""


class _Recorder(Pen):
    """A pen that remembers what it wrote."""

    def __init__(self, written: list[str]) -> None:
        super().__init__()
        object.__setattr__(self, "written", written)

    def write(self, canvas: Any, text: str, at: Any, **how: Any) -> None:
        self.written.append(text)  # type: ignore[attr-defined]


def in_gallery(smear: SmearFindings) -> Counts:
    """What the differential of the gallery says: each row is a word, then its number."""
    written: list[str] = []
    canvas = compose_gallery(smear, [], least_cells=LEAST_CELLS)
    gallery_summary.draw_differential(_Recorder(written), canvas, smear, least_cells=LEAST_CELLS)
    rows = written[2 : written.index(gallery_summary.CHART_NOTE)]
    numbers = {
        word: int(figure.split()[0]) for word, figure in zip(rows[::2], rows[1::2], strict=True)
    }
    found, referred = numbers.pop("all cells found"), numbers.pop("referred to an expert")
    apart = sum(numbers.pop(word, 0) for word in APART_WORDS)
    return Counts(found, sum(numbers.values()), referred, apart, _without_zeros(numbers))


APART_WORDS = ("type undetermined", "erythroblast", "platelet", "smudge cell")


def in_page(html: str) -> Counts:
    """What the smear's page of the console says."""
    words = " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())
    counted, found = map(int, _found(r"White cells counted (\d+) of (\d+) found", words).groups())
    referred = int(_found(r"Referred to an expert (\d+)", words)[1])
    rows = re.findall(r'<tr><th scope="row">([^<]+)</th><td class="n">(\d+)</td>', html)
    apart = re.search(r"Not in any share: \d+ referred, (.*?)\.", words)
    numbers = [int(number) for number in re.findall(r"(\d+) ", apart[1])] if apart else []
    return Counts(
        found=found,
        counted=counted,
        referred=referred,
        # Where nothing was counted the page has no differential, and says nothing of the rest.
        apart=sum(numbers) if apart else found - counted - referred,
        differential=_without_zeros({name: int(count) for name, count in rows}),
    )


def _found(pattern: str, words: str) -> re.Match[str]:
    found = re.search(pattern, words)
    assert found is not None, f"{pattern} is not in the page"
    return found


def said_by(results: Iterable[Result]) -> dict[str, Counts]:
    """What the five outputs with numbers say, by name."""
    by_kind = {one.kind: one for one in results}
    return {
        "CSV": in_table(by_kind[ResultKind.TABLE].content),
        "FHIR": in_bundle(by_kind[ResultKind.FHIR_BUNDLE].content),
        "HL7": in_message(by_kind[ResultKind.HL7_MESSAGE].content),
        "PDF": in_pdf(by_kind[ResultKind.PDF_REPORT].content),
        "SR": in_structured_report(read(by_kind[ResultKind.STRUCTURED_REPORT])),
    }
