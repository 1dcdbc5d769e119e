"""The schema of DICOM Audit Messages (PS3.15 A.5.1), as a table that a test can hold XML against.

The standard gives it in RELAX NG; here stands what it allows: for each element its attributes,
its text and its children in their order. Extension elements are left out: we send none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from xml.etree.ElementTree import Element

TOKEN = re.compile(r"\S(.*\S)?", re.DOTALL)
ANY = re.compile(r".*", re.DOTALL)
UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
BOOLEAN = re.compile(r"true|false")
INTEGER = re.compile(r"[0-9]+")
DATE_TIME = "dateTime"
BASE64 = "base64Binary"

Values = re.Pattern[str] | str


def one_of(*values: str) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, values)))


@dataclass(frozen=True)
class Shape:
    """`children`: name → (least, most); None is no limit. `optional` attributes may be absent."""

    required: Mapping[str, Values] = field(default_factory=dict)
    optional: Mapping[str, Values] = field(default_factory=dict)
    children: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    text: Values | None = None


CODED = Shape(
    required={"csd-code": TOKEN, "codeSystemName": TOKEN, "originalText": TOKEN},
    optional={"displayName": TOKEN},
)

SCHEMA: Mapping[str, Shape] = {
    "AuditMessage": Shape(
        children={
            "EventIdentification": (1, 1),
            "ActiveParticipant": (1, None),
            "AuditSourceIdentification": (1, 1),
            "ParticipantObjectIdentification": (0, None),
        }
    ),
    "EventIdentification": Shape(
        required={
            "EventDateTime": DATE_TIME,
            "EventOutcomeIndicator": one_of("0", "4", "8", "12"),
        },
        optional={"EventActionCode": one_of(*"CRUDE")},
        children={
            "EventID": (1, 1),
            "EventTypeCode": (0, None),
            "EventOutcomeDescription": (0, 1),
        },
    ),
    "EventID": CODED,
    "EventTypeCode": CODED,
    "EventOutcomeDescription": Shape(text=ANY),
    "ActiveParticipant": Shape(
        required={"UserID": ANY, "UserIsRequestor": BOOLEAN},
        optional={
            "AlternativeUserID": ANY,
            "UserName": ANY,
            "NetworkAccessPointID": TOKEN,
            "NetworkAccessPointTypeCode": one_of(*"12345"),
        },
        children={"RoleIDCode": (0, None)},
    ),
    "RoleIDCode": CODED,
    "AuditSourceIdentification": Shape(
        required={"AuditSourceID": TOKEN},
        optional={"AuditEnterpriseSiteID": TOKEN},
        children={"AuditSourceTypeCode": (0, None)},
    ),
    "AuditSourceTypeCode": Shape(required={"csd-code": one_of(*"123456789")}),
    "ParticipantObjectIdentification": Shape(
        required={"ParticipantObjectID": TOKEN},
        optional={
            "ParticipantObjectTypeCode": one_of(*"1234"),
            "ParticipantObjectTypeCodeRole": one_of(*map(str, range(1, 27))),
            "ParticipantObjectDataLifeCycle": one_of(*map(str, range(1, 16))),
            "ParticipantObjectSensitivity": TOKEN,
        },
        children={
            "ParticipantObjectIDTypeCode": (1, 1),
            "ParticipantObjectName": (1, 1),
            "ParticipantObjectDetail": (0, None),
            "ParticipantObjectDescription": (0, None),
        },
    ),
    "ParticipantObjectIDTypeCode": CODED,
    "ParticipantObjectName": Shape(text=TOKEN),
    "ParticipantObjectDetail": Shape(required={"type": TOKEN, "value": BASE64}),
    "ParticipantObjectDescription": Shape(children={"SOPClass": (0, None)}),
    "SOPClass": Shape(
        required={"NumberOfInstances": INTEGER},
        optional={"UID": UID},
        children={"Instance": (0, None)},
    ),
    "Instance": Shape(required={"UID": UID}),
}


def schema_problems(element: Element) -> Iterator[str]:
    """One sentence for each thing that the schema does not allow."""
    shape = SCHEMA.get(element.tag)
    if shape is None:
        yield f"{element.tag} is no element of the schema"
        return
    allowed = {**shape.required, **shape.optional}
    yield from (f"{element.tag} lacks {n}" for n in shape.required if n not in element.attrib)
    for name, value in element.attrib.items():
        if name not in allowed:
            yield f"{element.tag} has no attribute {name}"
        elif not _fits(value, allowed[name]):
            yield f"{element.tag}/@{name} is {value!r}"
    text = element.text or ""
    if not (_fits(text, shape.text) if shape.text else not text.strip()):
        yield f"{element.tag} holds the text {text!r}"
    yield from _order_problems(element, shape)
    for child in element:
        yield from schema_problems(child)


def _order_problems(element: Element, shape: Shape) -> Iterator[str]:
    names = [child.tag for child in element]
    order = [name for name in shape.children if name in names]
    if names != sorted(names, key=lambda n: order.index(n) if n in order else -1):
        yield f"{element.tag} has its children in another order: {names}"
    for name, (least, most) in shape.children.items():
        if not least <= names.count(name) <= (most or len(names)):
            yield f"{element.tag} has {names.count(name)} {name}"
    yield from (f"{element.tag} has no child {n}" for n in names if n not in shape.children)


def _fits(value: str, rule: Values) -> bool:
    if isinstance(rule, re.Pattern):
        return rule.fullmatch(value) is not None
    try:
        if rule is DATE_TIME:
            return datetime.fromisoformat(value).tzinfo is not None
        base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return False
    return True
