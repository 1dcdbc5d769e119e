"""Builds content items of structured reports (PS3.3 C.17.3), one small function per value type.

Written straight to datasets; a library would check and copy each item once more. ADR 0010 and
`python -m tests.benchmarks.bench_report` say what two hundred cells cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from config.codes import Concept
from reporting.dicom.attributes import Attributes
from reporting.dicom.source_attributes import SourceFrame, code_item, image_reference
from reporting.results import ObjectReference


class Relation(StrEnum):
    """How a content item belongs to the one above it."""

    CONTAINS = "CONTAINS"
    OBSERVATION_CONTEXT = "HAS OBS CONTEXT"
    CONCEPT_MODIFIER = "HAS CONCEPT MOD"
    SELECTED_FROM = "SELECTED FROM"
    INFERRED_FROM = "INFERRED FROM"


def root(title: Concept, template: str, children: Iterable[Dataset]) -> Dataset:
    """The SR Document Content Module: the tree's root, to be merged into the document."""
    content = Attributes()
    content.ValueType = "CONTAINER"
    content.ConceptNameCodeSequence = [code_item(title)]
    content.ContinuityOfContent = "SEPARATE"
    content.ContentTemplateSequence = [_template(template)]
    content.ContentSequence = list(children)
    return content


def container(
    name: Concept, children: Iterable[Dataset], *, template: str | None = None
) -> Dataset:
    """A heading with its children."""
    item = _item("CONTAINER", name, Relation.CONTAINS)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        item.ContentTemplateSequence = [_template(template)]
    item.ContentSequence = list(children)
    return item


def text(name: Concept, value: str, relation: Relation = Relation.CONTAINS) -> Dataset:
    """Words."""
    item = _item("TEXT", name, relation)
    item.TextValue = value
    return item


def person_name(
    name: Concept, value: str, relation: Relation = Relation.OBSERVATION_CONTEXT
) -> Dataset:
    """A person's name, as one family name: which part is which is not known."""
    item = _item("PNAME", name, relation)
    item.PersonName = as_person_name(value)
    return item


def as_person_name(words: str) -> str:
    """Free text as a value of PN (PS3.5 6.2): at most 64 characters of one component group."""
    return " ".join(words.replace("^", " ").replace("=", " ").replace("\\", " ").split())[:64]


def code(
    name: Concept,
    value: Concept,
    relation: Relation = Relation.CONTAINS,
    children: Sequence[Dataset] = (),
) -> Dataset:
    """A coded value."""
    item = _item("CODE", name, relation)
    item.ConceptCodeSequence = [code_item(value)]
    if children:
        item.ContentSequence = list(children)
    return item


def uid_reference(
    name: Concept, value: str, relation: Relation = Relation.OBSERVATION_CONTEXT
) -> Dataset:
    """A UID."""
    item = _item("UIDREF", name, relation)
    item.UID = value
    return item


def number(name: Concept, value: float, unit: Concept, children: Sequence[Dataset] = ()) -> Dataset:
    """A measured figure with its unit; `children` say what it was inferred from."""
    measured = Attributes()
    measured.NumericValue = DSfloat(round(value, 6), auto_format=True)
    measured.MeasurementUnitsCodeSequence = [code_item(unit)]
    item = _item("NUM", name, Relation.CONTAINS)
    item.MeasuredValueSequence = [measured]
    if children:
        item.ContentSequence = list(children)
    return item


def region(
    name: Concept,
    points: NDArray[np.float32],
    source: SourceFrame,
    relation: Relation = Relation.CONTAINS,
) -> Dataset:
    """A closed outline on the source image; `points` is N × 2 and closed."""
    item = _item("SCOORD", name, relation)
    item.GraphicData = [float(value) for value in points.ravel()]
    item.GraphicType = "POLYLINE"
    item.PixelOriginInterpretation = "FRAME"
    item.ContentSequence = [source_image(source, Relation.SELECTED_FROM)]
    return item


@lru_cache(maxsize=2)
def source_image(source: SourceFrame, relation: Relation = Relation.CONTAINS) -> Dataset:
    """A source image by reference, shared by all cells of the field: never change it."""
    item = Attributes()
    item.RelationshipType = relation
    item.ValueType = "IMAGE"
    item.ReferencedSOPSequence = [image_reference(source, purpose=None)]
    return item


def made_object(reference: ObjectReference, value_type: str) -> Dataset:
    """An object of our own by reference, as IMAGE or COMPOSITE."""
    return object_item(reference.sop_class_uid, reference.sop_instance_uid, value_type)


def object_item(sop_class_uid: str, sop_instance_uid: str, value_type: str) -> Dataset:
    """An object by class and UID, as IMAGE or COMPOSITE."""
    sop = Attributes()
    sop.ReferencedSOPClassUID = sop_class_uid
    sop.ReferencedSOPInstanceUID = sop_instance_uid
    item = Attributes()
    item.RelationshipType = Relation.CONTAINS
    item.ValueType = value_type
    item.ReferencedSOPSequence = [sop]
    return item


def _item(value_type: str, name: Concept, relation: Relation) -> Dataset:
    item = Attributes()
    item.RelationshipType = relation
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [code_item(name)]
    return item


@cache
def _template(identifier: str) -> Dataset:
    """Shared by all: never change it."""
    template = Attributes()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = identifier
    return template
