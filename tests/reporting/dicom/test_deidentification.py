"""Nobody can be found again in a pseudonymised export, and its parts still belong together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pipeline.domain import CalibrationIdentity, Call, SignOff, SmearId, SOPInstanceUID
from pipeline.errors import Defect, NeedsReview, Rejected
from pipeline.findings.smear_summary import gather_smear
from reporting.dicom.deidentification import Option, Pseudonymiser, Variant, read_site_key
from reporting.documents.csv_table import build_table
from reporting.fhir.bundle import build_bundle
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import ISSUED_AT, make_context, make_headers, make_references
from tests.reporting.reviews import reviewed
from tests.reporting.sources import make_source

KEY = bytes(range(32))
ALL = frozenset(Option)
SECRETS = (
    "PID-77",
    "Müller",
    "19610203",
    "HOSPITAL",
    "ACC-5",
    "SLIDE-9",
    "20261121",
    "Dr Quincke",
    "St Elsewhere",
    "SN-123",
    "Bed 7",
    "1.2.3.",
)
SMEAR = gather_smear(
    SmearId("1.2.3.200"),
    [
        make_field_findings(
            sop_instance_uid=f"1.2.3.{n}",
            study_uid="1.2.3.100",
            series_uid="1.2.3.200",
            calls=[Call.LEUKEMIC, Call.NORMAL],
        )
        for n in range(1, 5)
    ],
)


def sources() -> dict[SOPInstanceUID, Dataset]:
    """Headers full of what must not leave, private and nested attributes included."""
    headers = make_headers(SMEAR)
    for header in headers.values():
        header.ReferringPhysicianName = "Dr Quincke"
        header.InstitutionName = "St Elsewhere"
        header.DeviceSerialNumber = "SN-123"
        header.PatientComments = "Bed 7"
        header.StudyDescription = "smear of Müller"
        header.PatientAge = "065Y"
        header.ContentDate = "20261122"
        header.ImageComments = "Bed 7"
        header.private_block(0x0009, "ACME", create=True).add_new(0x01, "LO", "Bed 7")
        specimen = Dataset()
        specimen.SpecimenIdentifier = "PID-77-A"
        specimen.SpecimenUID = "1.2.3.900"
        specimen.SpecimenShortDescription = "taken from Müller"
        header.SpecimenDescriptionSequence = [specimen]
        header.Rows = header.Columns = 2
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.SourceApplicationEntityTitle = "Bed 7"
    return headers


def variant_of(*, key: bytes = KEY, options: Iterable[Option] = ()) -> Variant:
    pseudonymiser = Pseudonymiser(key, options=options)
    return pseudonymiser.variant(SMEAR, read_source=sources().__getitem__, context=make_context())


def everything(variant: Variant) -> str:
    """All that the variant says, as text."""
    headers = {
        f.sop_instance_uid: variant.read_source(f.sop_instance_uid) for f in variant.smear.fields
    }
    images = make_references(variant.smear)
    bundle = build_bundle(
        variant.smear,
        headers=headers,
        image_uids=images,
        gallery_png=None,
        pdf=None,
        context=variant.context,
    )
    table = build_table(variant.smear, headers=headers, image_uids=images, context=variant.context)
    dicom = [f"{d.to_json()} {d.file_meta.to_json()}" for d in headers.values()]
    return " ".join([bundle.content.decode(), table.content.decode(), *dicom])


def test_a_short_key_protects_nobody() -> None:
    with pytest.raises(Defect):
        Pseudonymiser(b"short")


def test_a_source_with_burned_in_text_waits_for_a_person() -> None:
    source = sources()[SMEAR.fields[0].sop_instance_uid]
    source.BurnedInAnnotation = "YES"

    with pytest.raises(NeedsReview) as refused:
        Pseudonymiser(KEY).dataset(source)

    assert refused.value.code == "burned_in_text"


def test_nothing_that_names_a_person_is_left() -> None:
    text = everything(variant_of())

    assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "calibrated on 2026-11-28 (9 smears)"),
        (
            (Option.RETAIN_INSTITUTION_IDENTITY,),
            "calibrated for St Elsewhere on 2026-11-28 (9 smears)",
        ),
    ],
)
def test_a_calibration_names_the_laboratory_only_where_the_institution_is_kept(
    options: tuple[Option, ...], words: str
) -> None:
    calibration = CalibrationIdentity(
        site="St Elsewhere", made_on="2026-11-28", smears=9, sha256="c" * 64
    )
    model = replace(SMEAR.model, calibration=calibration)
    smear = make_smear_findings([replace(field, model=model) for field in SMEAR.fields])

    variant = Pseudonymiser(KEY, options=options).variant(
        smear, read_source=sources().__getitem__, context=make_context()
    )

    assert variant.smear.model.calibration is not None
    assert variant.smear.model.calibration.in_words == words
    assert variant.smear.model.key == model.key


def test_options_keep_what_they_name_and_no_more() -> None:
    text = everything(variant_of(options=ALL))

    kept = {"St Elsewhere", "SN-123"}
    assert {secret for secret in SECRETS if secret in text} == kept


@pytest.mark.parametrize("options", [frozenset(), ALL])
def test_what_was_done_is_said(options: frozenset[Option]) -> None:
    made = Pseudonymiser(KEY, options=options).dataset(next(iter(sources().values())))

    assert made.PatientIdentityRemoved == "YES"
    method = [item.CodeValue for item in made.DeidentificationMethodCodeSequence]
    assert method == (["113100", "113107", "113108", "113109", "113112"] if options else ["113100"])
    assert made.LongitudinalTemporalInformationModified == ("MODIFIED" if options else "REMOVED")


def test_dicom_and_fhir_agree() -> None:
    variant = variant_of(options=[Option.MODIFIED_DATES])
    headers = {
        f.sop_instance_uid: variant.read_source(f.sop_instance_uid) for f in variant.smear.fields
    }

    bundle = json.loads(
        build_bundle(
            variant.smear,
            headers=headers,
            image_uids=[],
            gallery_png=None,
            pdf=None,
            context=variant.context,
        ).content
    )

    [report] = [
        e["resource"]
        for e in bundle["entry"]
        if e["resource"]["resourceType"] == "DiagnosticReport"
    ]
    header = next(iter(headers.values()))
    assert report["subject"]["identifier"]["value"] == header.PatientID
    assert report["basedOn"][0]["identifier"]["value"] == header.AccessionNumber
    assert report["effectiveDateTime"][:10].replace("-", "") == header.ContentDate
    assert "PSEUDED" in [label["code"] for label in report["meta"]["security"]]


def test_findings_and_sources_still_belong_together() -> None:
    variant = variant_of()

    for field in variant.smear.fields:
        source = variant.read_source(field.sop_instance_uid)
        assert source.SOPInstanceUID == field.sop_instance_uid
        assert source.StudyInstanceUID == field.study_uid
        assert source.SeriesInstanceUID == field.series_uid
        assert str(source.file_meta.MediaStorageSOPInstanceUID) == field.sop_instance_uid
    assert variant.smear.differential == SMEAR.differential
    assert variant.smear.grade is SMEAR.grade


def test_pseudonyms_are_the_site_s_own() -> None:
    again, elsewhere = variant_of(), variant_of(key=bytes(range(1, 33)))
    here = variant_of()

    assert everything(here) == everything(again)
    assert {f.sop_instance_uid for f in here.smear.fields}.isdisjoint(
        f.sop_instance_uid for f in elsewhere.smear.fields
    )


def test_all_dates_of_a_patient_move_together_and_the_report_with_them() -> None:
    variant = variant_of(options=[Option.MODIFIED_DATES])

    source = variant.read_source(variant.smear.fields[0].sop_instance_uid)

    shift = ISSUED_AT - variant.context.issued_at
    assert 1 <= shift.days <= 365
    assert source.StudyDate == f"{datetime(2026, 11, 21, tzinfo=UTC) - shift:%Y%m%d}"
    assert source.ContentDate == f"{datetime(2026, 11, 22, tzinfo=UTC) - shift:%Y%m%d}"
    assert source.StudyTime == "101500"


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_patients_get_two_pseudonyms_of_legal_length(one: str, other: str) -> None:
    pseudonymiser = Pseudonymiser(KEY)

    def named(patient: str) -> str:
        header = Dataset()
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        header.SOPInstanceUID = "1.2.3"
        header.PatientID = patient
        header.AccessionNumber = "X"
        made = pseudonymiser.dataset(header)
        assert len(made.AccessionNumber) <= 16
        return made.PatientID

    assert (named(one) == named(other)) == (one.strip() == other.strip())


@given(st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,9})){1,5}", fullmatch=True))
def test_a_uid_becomes_a_uid(original: str) -> None:
    made = Pseudonymiser(KEY).uid(original)

    assert made.startswith("2.25.")
    assert len(made) <= 64
    assert made == Pseudonymiser(KEY).uid(original)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    read_site_key(path)
    path.chmod(0o644)

    with pytest.raises(Rejected) as refused:
        read_site_key(path)

    assert refused.value.code == "pseudonym_key_exposed"


@pytest.mark.parametrize("content", ["", "not hex", "00ff"])
def test_a_damaged_key_is_refused_and_never_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "site.key"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(Rejected):
        read_site_key(path)

    assert path.read_text() == content


def test_a_missing_key_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    seen: list[bytes] = []
    threads = [Thread(target=lambda: seen.append(read_site_key(path))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(seen)) == 1
    assert len(seen) == 8
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["site.key"]


def test_reviewers_are_pseudonyms_too_and_their_words_stay_behind() -> None:
    smear = reviewed(make_smear_findings())
    of = {f.sop_instance_uid: make_source("microscopic", f) for f in smear.fields}

    variant = Pseudonymiser(KEY).variant(smear, read_source=of.__getitem__, context=make_context())

    review = variant.smear.review
    assert review is not None
    assert review.sign_off is SignOff.FINAL
    assert "Meyer" not in repr(review)
    assert "Lab North" not in repr(review)
    assert review.signatures[0].reviewer.name == review.reviewers[0].name
