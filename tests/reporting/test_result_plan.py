"""Which objects a set has, and with which UIDs, before any is built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reporting.result_plan import SOP_CLASSES, plan_objects
from reporting.results import DICOM_KINDS, ObjectReference, ResultKind
from tests.findings import MODEL, make_field_findings, make_smear_findings
from tests.reporting.made import context_for
from tests.reporting.sources import make_source

ORDERS = st.permutations([1, 2, 3])


def plan(order: list[int] | None = None, **changed: Any) -> tuple[ObjectReference, ...]:
    version = changed.pop("version", 1)
    fields = [
        make_field_findings(sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}", **changed)
        for number in order or [1, 2, 3]
    ]
    headers = {one.sop_instance_uid: make_source("slide_coordinates", one) for one in fields}
    return plan_objects(make_smear_findings(fields), headers, context_for(version=version))


def uids(objects: tuple[ObjectReference, ...]) -> set[str]:
    return {one.sop_instance_uid for one in objects}


def test_every_kind_has_a_sop_class() -> None:
    assert set(SOP_CLASSES) == DICOM_KINDS


def test_the_same_smear_gives_the_same_plan() -> None:
    assert plan() == plan()


@given(ORDERS)
def test_images_that_came_in_another_order_are_the_same_smear(order: list[int]) -> None:
    """Gathering sorts fields, so the order of arrival never shows in a UID."""
    assert uids(plan(order)) == uids(plan())


def test_another_network_gives_other_objects() -> None:
    other = replace(MODEL, sha256="ab" * 32)

    assert not uids(plan()) & uids(plan(model=other))


def test_an_amended_report_gives_other_objects() -> None:
    assert not uids(plan()) & uids(plan(version=2))


def test_one_image_more_gives_other_objects() -> None:
    assert not uids(plan([1, 2])) & uids(plan([1, 2, 3]))


def test_each_field_s_segmentation_is_a_series_of_its_own_and_says_which_field() -> None:
    """Of several segmentations in one series OHIF opens the last."""
    masks = [one for one in plan() if one.kind is ResultKind.SEGMENTATION]

    assert len({one.series_instance_uid for one in masks}) == 3
    assert [one.series_field for one in masks] == [1, 2, 3]
    assert [one.series_field for one in plan([1])] == [None] * len(plan([1]))


def test_numbers_run_from_one_in_each_series() -> None:
    numbers: dict[str, list[int]] = {}
    for one in plan():
        numbers.setdefault(one.series_instance_uid, []).append(one.instance_number)

    assert all(found == [*range(1, len(found) + 1)] for found in numbers.values())
