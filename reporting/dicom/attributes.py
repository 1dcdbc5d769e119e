"""Attributes of a derived object while it is built: pydicom's Dataset, filled sooner.

pydicom converts and validates each value anew and sets a dozen fields of every empty dataset one
by one, which was a fifth of a report's time. Here equal values are converted once. What is set is
what pydicom would set; tests/reporting/dicom/test_attributes.py compares the two.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from pydicom import DataElement, Dataset, Sequence
from pydicom.config import WARN
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

_WORDS = frozenset(
    {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_INTEGERS = frozenset({"IS", "SL", "SS", "UL", "US"})
_FLOATS = frozenset({"FD", "FL"})

_EMPTY = dict(vars(Dataset()))
_PER_DATASET = tuple(name for name, value in _EMPTY.items() if isinstance(value, dict))


class SharedElement(DataElement):
    """An element that many datasets may hold, and its bytes, once somebody has encoded it."""

    _kept: tuple[str, Any, bytes] | None = None

    def keep(self, encoded: bytes) -> None:
        """Keep the bytes of the value that it has now; they depend on no character set."""
        self._kept = (self.VR, self._value, encoded)

    @property
    def encoded(self) -> bytes | None:
        """The bytes that were kept, while it has the same value."""
        kept = self._kept
        is_same = kept is not None and kept[1] is self._value and kept[0] == self.VR
        return kept[2] if kept and is_same else None


class Attributes(Dataset):
    """A dataset that smearlink fills. Elements may be shared: setting replaces, never alters."""

    def __init__(self) -> None:
        fields = _EMPTY.copy()
        for name in _PER_DATASET:
            fields[name] = fields[name].copy()
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: Any) -> None:
        tag, vr = _place_of(name)
        if tag is None:
            super().__setattr__(name, value)
        elif (element := _element(tag, vr, value)) is not None:
            self._dict[tag] = element
        else:
            self._dict.pop(tag, None)
            super().__setattr__(name, value)

    def update(self, other: Any) -> None:
        """As pydicom's; the elements of other Attributes are shared."""
        if isinstance(other, Attributes):
            self._dict.update(other._dict)
        else:
            super().update(other)


@cache
def tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword of the data dictionary."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not in the data dictionary")
    return Tag(tag)


@cache
def _place_of(name: str) -> tuple[BaseTag | None, str]:
    """Tag and value representation; no tag for what is no keyword."""
    tag = tag_for_keyword(name)
    return (None, "") if tag is None else (Tag(tag), dictionary_VR(tag))


def _element(tag: BaseTag, vr: str, value: Any) -> DataElement | None:
    """The element that pydicom would make; None leaves it to pydicom."""
    kind = type(value)
    if vr == "SQ" and kind is list and all(isinstance(item, Attributes) for item in value):
        converted: Any = Sequence(value)
    elif (vr in _WORDS and _is_one_word(value)) or (vr in _INTEGERS and kind is int):
        return _shared_element(tag, vr, value)
    elif vr in _FLOATS and kind is float:
        converted = value
    elif vr in _FLOATS and kind is list and len(value) > 1 and set(map(type, value)) == {float}:
        converted = MultiValue(float, value)
    else:
        return None
    return DataElement(tag, vr, converted, already_converted=True, validation_mode=WARN)


def _is_one_word(value: Any) -> bool:
    return value is None or (isinstance(value, str) and "\\" not in value)


@lru_cache(maxsize=4096, typed=True)
def _shared_element(tag: BaseTag, vr: str, value: str | int | None) -> SharedElement:
    """As pydicom makes it; its value cannot be altered, or never is."""
    converted = DataElement(0x00080000, vr, value).value
    return SharedElement(tag, vr, converted, already_converted=True, validation_mode=WARN)
