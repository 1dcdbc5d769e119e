"""Reads answers in XML from servers that write no JSON, as far as deliveries look at them.

A FHIR resource gets the shape of FHIR's JSON, a Store Instances Response (PS3.19 Native DICOM
Model) that of the DICOM JSON Model (PS3.18 Annex F).
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

REPEATED = frozenset({"entry", "issue", "expression", "location", "rest", "interaction"})
"""Elements that JSON writes as arrays."""
MAX_DEPTH = 100


def resource_of_xml(content: bytes) -> dict[str, Any]:
    """The FHIR resource, empty when the content is not UTF-8 XML or declares a document type."""
    root = _root_of(content)
    return {} if root is None else {**_members(root), "resourceType": _local(root)}


def response_of_xml(content: bytes) -> dict[str, Any] | None:
    """The data set of a Native DICOM Model; None when the content is none."""
    root = _root_of(content)
    if root is None or _local(root) not in ("NativeDicomModel", "DicomDataSet"):
        return None
    return _data_set(root)


def _root_of(content: bytes) -> ET.Element | None:
    text = content.removeprefix(b"\xef\xbb\xbf").strip()
    if not text.startswith(b"<") or b"<!DOCTYPE" in text or b"\0" in text:
        return None
    try:
        root = ET.fromstring(text)  # noqa: S314 - no document type, so no entities
    except (ET.ParseError, ValueError, LookupError):
        return None
    return root if _depth_of(root) <= MAX_DEPTH else None


def _depth_of(root: ET.Element) -> int:
    depth, level = 0, [root]
    while level and depth <= MAX_DEPTH:
        depth, level = depth + 1, [child for element in level for child in element]
    return depth


def _data_set(element: ET.Element) -> dict[str, Any]:
    attributes = (one for one in element if _local(one) == "DicomAttribute")
    return {one.get("tag", ""): {"Value": list(map(_dicom_value, one))} for one in attributes}


def _dicom_value(element: ET.Element) -> Any:
    """An item of a sequence, or the text of a value."""
    return _data_set(element) if _local(element) == "Item" else (element.text or "").strip()


def _members(element: ET.Element) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for child in element:
        name = _local(child)
        if name in REPEATED:
            members.setdefault(name, []).append(_value(child))
        else:
            members.setdefault(name, _value(child))
    return members


def _value(element: ET.Element) -> Any:
    """A primitive's value, a resource within `resource` or `outcome`, or members by name."""
    if not len(element):
        return element.get("value", "")
    first = element[0]
    if len(element) == 1 and _local(first)[:1].isupper():
        return {**_members(first), "resourceType": _local(first)}
    return _members(element)


def _local(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]
