"""UIDs and FHIR ids that follow from what a result was made of, so a replay overwrites (law 2).

A UID is `2.25.` and the integer of a version-5 UUID (PS3.5 B.2); a FHIR id is the text of such
a UUID. The first part always is a kind word, so two kinds never share an identity.
"""

from __future__ import annotations

import json
from uuid import UUID, uuid5

SMEARLINK_NAMESPACE = UUID("6f2a1c0e-5d1f-5b7e-9a43-8d0c2b7f4e11")
"""Fixed for ever: changing it would make every replay a new object."""


def derived_uid(*parts: str) -> str:
    """The DICOM UID of what `parts` name, at most 44 characters."""
    return f"2.25.{_derived_uuid(parts).int}"


def derived_id(*parts: str) -> str:
    """The FHIR id of what `parts` name, 36 characters."""
    return str(_derived_uuid(parts))


def _derived_uuid(parts: tuple[str, ...]) -> UUID:
    """JSON keeps ("a", "bc") and ("ab", "c") apart."""
    if len(parts) < 2 or not parts[0]:
        raise ValueError("an identity needs a kind word and at least one part")
    return uuid5(SMEARLINK_NAMESPACE, json.dumps(parts, separators=(",", ":")))


IMPLEMENTATION_CLASS_UID = derived_uid("implementation", "smearlink")
"""Of the files that we write (PS3.7 D.3.3.2)."""
