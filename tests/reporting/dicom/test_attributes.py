"""What is set on Attributes is what pydicom would set, and elements can be shared."""

from __future__ import annotations

from copy import deepcopy
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from reporting.dicom.attributes import Attributes, tag_of
from reporting.dicom.encoding import encode_dataset


class Word(StrEnum):
    CONTAINS = "CONTAINS"


TEXT = st.one_of(
    st.none(),
    st.text(st.characters(codec="latin-1", min_codepoint=32, exclude_characters="\x7f")),
    st.just(Word.CONTAINS),
)
INTEGER = st.one_of(st.integers(0, 65535), st.none(), st.booleans())
FLOAT = st.floats(0, 9000, width=32)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "PatientName": TEXT,
    "SeriesDescription": TEXT,
    "TextValue": TEXT,
    "ImageType": st.one_of(TEXT, st.lists(st.sampled_from(["DERIVED", "PRIMARY", ""]))),
    "SOPInstanceUID": st.sampled_from(["1.2.3", UID("1.2.4"), None, ""]),
    "StudyDate": st.sampled_from(["20261124", "", None]),
    "NumericValue": st.sampled_from([3, "1.5", DSfloat(2.25, auto_format=True), None, [1, 2]]),
    "InstanceNumber": st.one_of(st.integers(-9, 99999), st.sampled_from(["7", None])),
    "Rows": INTEGER,
    "SmallestImagePixelValue": INTEGER,
    "GraphicData": st.one_of(FLOAT, st.lists(FLOAT, max_size=5)),
    "PixelData": st.binary(max_size=8),
    "DimensionIndexPointer": st.just(0x00621010),
}


def both(settings: list[tuple[str, Any]]) -> tuple[Attributes, Dataset]:
    filled, plain = Attributes(), Dataset()
    for keyword, value in settings:
        setattr(filled, keyword, deepcopy(value))
        setattr(plain, keyword, deepcopy(value))
    return filled, plain


def settings() -> st.SearchStrategy[list[tuple[str, Any]]]:
    return st.lists(
        st.sampled_from(sorted(VALUES)).flatmap(
            lambda keyword: st.tuples(st.just(keyword), VALUES[keyword])
        ),
        max_size=8,
    )


@pytest.mark.filterwarnings("ignore")
@given(settings())
def test_elements_are_those_of_pydicom(chosen: list[tuple[str, Any]]) -> None:
    filled, plain = both(chosen)

    assert filled.keys() == plain.keys()
    for keyword in dict(chosen):
        mine, theirs = filled[keyword], plain[keyword]
        assert (mine.tag, mine.VR, mine.value, type(mine.value)) == (
            theirs.tag,
            theirs.VR,
            theirs.value,
            type(theirs.value),
        )


@pytest.mark.filterwarnings("ignore")
@given(settings())
def test_the_file_is_that_of_pydicom(chosen: list[tuple[str, Any]]) -> None:
    of_one_vr = [one for one in chosen if one[0] not in ("SmallestImagePixelValue", "PixelData")]
    filled, plain = both(of_one_vr)
    top, other = Attributes(), Dataset()

    top.ContentSequence, other.ContentSequence = [filled], [plain]

    assert top == other
    assert encode_dataset(top) == encode_dataset(other)


def test_setting_replaces_a_shared_element() -> None:
    patient, image = Attributes(), Attributes()
    patient.PatientID = "1"
    patient.PatientName = "A"
    image.update(patient)

    image.PatientID = "2"
    image.PatientName = "B"

    assert (patient.PatientID, patient.PatientName) == ("1", "A")
    assert (image.PatientID, image.PatientName) == ("2", "B")


def test_two_empty_ones_share_nothing() -> None:
    first, second = Attributes(), Attributes()

    first.Rows = 3

    assert not second
    assert vars(first).keys() == vars(Dataset()).keys()


def test_what_is_no_keyword_is_refused_as_by_pydicom() -> None:
    with pytest.warns(UserWarning, match="Camel case"):
        Attributes().PatientNam = "A"
    with pytest.raises(TypeError):
        Attributes().ContentSequence = [3]
    with pytest.raises(ValueError, match="not in the data dictionary"):
        tag_of("PatientNam")


def described(words: str, character_set: str) -> Attributes:
    dataset = Attributes()
    dataset.SpecificCharacterSet = character_set
    dataset.SeriesDescription = words
    return dataset


def test_a_shared_element_is_encoded_in_the_character_set_of_each_dataset() -> None:
    latin, unicode = described("Bär", "ISO_IR 100"), described("Bär", "ISO_IR 192")

    assert latin["SeriesDescription"] is unicode["SeriesDescription"]
    for dataset, codec in ((latin, "latin-1"), (unicode, "utf-8"), (latin, "latin-1")):
        assert "Bär".encode(codec) in encode_dataset(dataset)


def test_an_element_is_encoded_as_it_is_now() -> None:
    dataset = described("first", "ISO_IR 100")
    element = deepcopy(dataset["SeriesDescription"])
    dataset["SeriesDescription"] = element
    encode_dataset(dataset)

    element.value = "second"
    of_value = encode_dataset(dataset)
    element.VR = "UT"
    of_representation = encode_dataset(dataset)

    assert b"LO\x06\0second" in of_value
    assert b"UT\0\0\x06\0\0\0second" in of_representation


@pytest.mark.filterwarnings("ignore")
@given(settings())
def test_what_is_encoded_again_gives_the_same_bytes(chosen: list[tuple[str, Any]]) -> None:
    of_one_vr = [one for one in chosen if one[0] not in ("SmallestImagePixelValue", "PixelData")]
    filled, _plain = both(of_one_vr)
    again, _plain = both(of_one_vr)

    assert encode_dataset(filled) == encode_dataset(filled) == encode_dataset(again)
