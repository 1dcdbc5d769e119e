"""HL7 v2.5.1 data types as text: every value of a message passes one of these functions.

Separators are escaped (chapter 2, 2.7) and control characters become spaces, so that no value can
end its component, field or segment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from config import codes
from config.codes import Concept
from reporting.content.identifiers import BusinessIdentifier, Physician

FIELD, COMPONENT, SUBCOMPONENT = "|", "^", "&"
ENCODING_CHARACTERS = "^~\\&"

CODING_SYSTEM = {
    codes.LOINC: "LN",
    codes.SNOMED_CT: "SCT",
    codes.DCM: "DCM",
    codes.UCUM: "UCUM",
}
"""HL7 table 0396."""
LOCAL_CODING_SYSTEM = "99SMEARLINK"
"""Coding system of what has no published code (HL7 table 0396: 99zzz)."""

UNIVERSAL_ID_TYPES = frozenset({"DNS", "GUID", "HCD", "HL7", "ISO", "L", "M", "N", "UUID", "URI"})
"""HL7 table 0301."""

ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Fields = Mapping[int, str]


def st(words: str) -> str:
    """ST, TX, FT, IS and ID: words."""
    return CONTROL.sub(" ", words).translate(ESCAPES)


def si(number: int) -> str:
    """SI and NM: a number."""
    return str(number)


def nm(number: float) -> str:
    """NM: a number with its decimals."""
    return f"{number:g}" if number != int(number) else str(int(number))


def ts(moment: datetime) -> str:
    """TS with its offset from UTC; a four-digit year always."""
    return f"{moment.year:04d}{moment:%m%d%H%M%S%z}"


def ts_of_iso(iso: str) -> str:
    """TS of an ISO 8601 year, month, day or date and time."""
    if "T" not in iso:
        return iso.replace("-", "")
    return ts(datetime.fromisoformat(iso))


def ce(concept: Concept) -> str:
    """CE and CWE: a published code, its words and its coding system."""
    return _components(concept.code, concept.display, CODING_SYSTEM[concept.system])


def ce_local(name: str, title: str) -> str:
    """CE of a concept of our own."""
    return _components(name, title, LOCAL_CODING_SYSTEM)


def cx(identifier: BusinessIdentifier) -> str:
    """CX: an identifier of a patient with its assigning authority."""
    return _joined([st(identifier.value), "", "", hd(identifier, SUBCOMPONENT)], COMPONENT)


def ei(identifier: BusinessIdentifier, separator: str = COMPONENT) -> str:
    """EI: an identifier with the authority that issued it."""
    return _joined([st(identifier.value), hd(identifier, separator)], separator)


def hd(identifier: BusinessIdentifier, separator: str) -> str:
    """HD: the issuer's local name, its universal id and the type of that."""
    universal = [st(identifier.universal_id), st(_universal_type(identifier))]
    has_universal = identifier.universal_id and identifier.universal_type in UNIVERSAL_ID_TYPES
    return _joined([st(identifier.assigner), *(universal if has_universal else [])], separator)


def _universal_type(identifier: BusinessIdentifier) -> str:
    """Table 0301 calls it GUID or UUID; the others are the words of DICOM."""
    return identifier.universal_type


def xcn(physician: Physician) -> str:
    """XCN: a person by identifier, family name and given name."""
    return _components(physician.identifier, physician.family, physician.given)


def ed(source: str, kind: str, subtype: str, base64: str) -> str:
    """ED: encapsulated data with all its components."""
    return _components(source, kind, subtype, "Base64", base64)


def segment(name: str, fields: Fields) -> str:
    """A segment of fields by number; empty ones at the end are left out."""
    return name + fields_after(0, fields)


def fields_after(position: int, fields: Fields) -> str:
    """Fields from the one after `position`."""
    last = max((number for number, value in fields.items() if value), default=position)
    return "".join(f"{FIELD}{fields.get(number, '')}" for number in range(position + 1, last + 1))


def _components(*words: str) -> str:
    return _joined([st(word) for word in words], COMPONENT)


def _joined(parts: list[str], separator: str) -> str:
    return separator.join(parts).rstrip(separator)
