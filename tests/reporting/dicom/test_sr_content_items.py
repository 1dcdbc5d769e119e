"""Content items of structured reports, each with what its value type asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.codes import BLOOD, PERCENT
from reporting.dicom.source_attributes import SourceFrame
from reporting.dicom.sr_content_items import Relation, code, container, number, region, root, text
from tests.findings import make_field_findings
from tests.reporting.sources import make_source


@given(st.floats(min_value=-1e9, max_value=1e9, allow_nan=False))
def test_any_figure_fits_a_decimal_string(value: float) -> None:
    """DS holds 16 characters (PS3.5 6.2), and no figure loses what anybody measured."""
    item = number(BLOOD, value, PERCENT)

    stored = item.MeasuredValueSequence[0].NumericValue
    assert len(str(stored)) <= 16
    assert math.isclose(float(stored), value, rel_tol=1e-9, abs_tol=1e-6)


def test_a_unit_is_a_code() -> None:
    unit = number(BLOOD, 1.0, PERCENT).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]

    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("%", "UCUM")


def test_a_region_names_its_image() -> None:
    field = make_field_findings()
    points = np.array([[1, 2], [3, 4], [5, 6], [1, 2]], dtype=np.float32)

    item = region(BLOOD, points, SourceFrame(header=make_source("microscopic", field), frame=1))

    assert list(item.GraphicData) == [1, 2, 3, 4, 5, 6, 1, 2]
    [image] = item.ContentSequence
    assert image.RelationshipType == "SELECTED FROM"
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == field.sop_instance_uid


@pytest.mark.parametrize("template", [None, "1410"])
def test_a_heading_names_its_template_if_it_has_one(template: str | None) -> None:
    item = container(BLOOD, [text(BLOOD, "x")], template=template)

    named = item.get("ContentTemplateSequence")
    assert (named[0].TemplateIdentifier if named else None) == template


def test_the_root_has_no_relation() -> None:
    assert "RelationshipType" not in root(BLOOD, "1500", [])


def test_a_code_may_have_items_below_it() -> None:
    below = text(BLOOD, "x", Relation.CONCEPT_MODIFIER)

    assert list(code(BLOOD, BLOOD, children=[below]).ContentSequence) == [below]
    assert "ContentSequence" not in code(BLOOD, BLOOD)
