"""One table of codes: no code twice with two meanings, none that names a disease."""

from __future__ import annotations

import pytest

from config import codes
from config.codes import CELL_TYPE, CELL_TYPE_SHARE, CONCEPTS, Concept
from pipeline.domain import CellType


def test_a_concept_without_a_dicom_designator_has_no_dicom_form() -> None:
    with pytest.raises(ValueError, match="no DICOM coding scheme"):
        _ = codes.AI_ASSERTED.dicom


def test_a_code_has_one_meaning() -> None:
    named = [value for value in vars(codes).values() if isinstance(value, Concept)]
    tabled = [c for table in (CELL_TYPE, CELL_TYPE_SHARE) for c in table.values()]

    assert all(CONCEPTS[c.system.url, c.code] == c for c in named + tabled)


def test_every_cell_type_has_a_cell_code() -> None:
    assert set(CELL_TYPE) == {str(cell_type) for cell_type in CellType}
    assert set(CELL_TYPE_SHARE) < set(CELL_TYPE)


def test_no_code_names_a_disease() -> None:
    assert {"91857003", "91861009"}.isdisjoint(code for _, code in CONCEPTS)


@pytest.mark.parametrize(
    "concept", [c for c in CONCEPTS.values() if c.system.designator], ids=lambda c: c.code
)
def test_a_dicom_form_fits_its_attributes(concept: Concept) -> None:
    """Code Value and Coding Scheme Designator are SH (16 characters), Code Meaning is LO (64)."""
    value, designator, meaning = concept.dicom

    assert 0 < len(value) <= 16
    assert 0 < len(designator) <= 16
    assert 0 < len(meaning) <= 64
    assert meaning.isascii()


def test_a_fhir_form_is_a_coding() -> None:
    assert codes.AI_ASSERTED.fhir == {
        "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
        "code": "AIAST",
        "display": "Artificial Intelligence asserted",
    }
