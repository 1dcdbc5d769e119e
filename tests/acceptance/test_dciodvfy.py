"""dciodvfy, the judge of DICOM objects, finds no error in any object of ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms
from pydicom import Dataset, dcmread

from listener.modality.secondary_capture import Order, read_files
from pipeline.domain import Call, FieldFindings, QualityFlag, SignOff, SmearFindings
from reporting.dicom.rejection_note import build_rejection_note
from reporting.result_set import build_result_set
from reporting.results import DICOM_KINDS, ReportContext, Result, ResultKind
from tests.builders import picture
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import make_context
from tests.reporting.reviews import reviewed
from tests.reporting.sources import PHOTOMETRIC, SOP_CLASSES, make_source

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        shutil.which("dciodvfy") is None,
        reason="dicom3tools is not installed: bash tests/install_peers.sh",
    ),
]

CONTEXT = replace(make_context(), kinds=DICOM_KINDS)


def errors_in(results: Iterable[Result], folder: Path) -> list[str]:
    """Every error line, with the kind of object; its exit code is 0 even with errors."""
    found = []
    for result in results:
        file = folder / result.name
        file.write_bytes(result.content)
        said = subprocess.run(
            ["dciodvfy", str(file)], capture_output=True, text=True, errors="replace", check=False
        )
        lines = f"{said.stdout}\n{said.stderr}".splitlines()
        assert any(line.startswith(IOD_NAMES[result.kind]) for line in lines), lines[:3]
        found += [f"{result.kind}: {line}" for line in lines if line.startswith("Error")]
    return found


IOD_NAMES = {
    ResultKind.ANNOTATED_FIELD: "SCImage",
    ResultKind.GALLERY: "SCImage",
    ResultKind.PRESENTATION_STATE: "ColorSoftcopyPresentationState",
    ResultKind.STRUCTURED_REPORT: "Comprehensive3DSR",
    ResultKind.BULK_ANNOTATIONS: "MicroscopyBulkSimpleAnnotations",
    ResultKind.SEGMENTATION: "Segmentation",
    ResultKind.KEY_OBJECTS: "KeyObjectSelectionDocument",
}
"""What it says that it recognized: otherwise it would have checked nothing."""


def results_of(
    smear: SmearFindings,
    make: Callable[[FieldFindings], Dataset],
    context: ReportContext = CONTEXT,
) -> list[Result]:
    sources = {field.sop_instance_uid: make(field) for field in smear.fields}
    return list(build_result_set(smear, read_source=sources.__getitem__, context=context))


def test_it_does_find_errors(tmp_path: Path) -> None:
    """Otherwise the tests below could not fail."""
    smear = make_smear_findings()
    [result] = results_of(
        smear,
        lambda field: make_source("microscopic", field),
        replace(CONTEXT, kinds=frozenset({ResultKind.GALLERY})),
    )
    spoilt = replace(
        result, content=result.content.replace(b"DERIVED\\SECONDARY", b"DER\\SECONDARY    ")
    )

    assert errors_in([spoilt], tmp_path)


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "least"])
@pytest.mark.parametrize("photometric", PHOTOMETRIC)
@pytest.mark.parametrize("kind", SOP_CLASSES)
def test_sources_of_every_class_and_color(
    kind: str, photometric: str, is_full: bool, tmp_path: Path
) -> None:
    smear = make_smear_findings([make_field_findings()])

    results = results_of(
        smear,
        lambda field: make_source(kind, field, is_full=is_full, photometric=photometric),
        replace(CONTEXT, compress_images=is_full),
    )

    assert errors_in(results, tmp_path) == []
    assert {one.kind for one in results} >= DICOM_KINDS - {
        ResultKind.BULK_ANNOTATIONS,
        ResultKind.PRESENTATION_STATE,
    }


@pytest.mark.parametrize("compress", [True, False], ids=["jpeg", "plain"])
def test_every_kind_of_object_was_looked_at(compress: bool, tmp_path: Path) -> None:
    smear = make_smear_findings([make_field_findings()])

    results = results_of(
        smear,
        lambda field: make_source("slide_coordinates", field),
        replace(CONTEXT, compress_images=compress),
    )

    assert {one.kind for one in results} == DICOM_KINDS
    assert errors_in(results, tmp_path) == []


def _without_cells(_: int) -> FieldFindings:
    return make_field_findings(calls=())


def _unusable(_: int) -> FieldFindings:
    flags = frozenset({QualityFlag.OUT_OF_FOCUS, QualityFlag.NOT_A_SMEAR})
    return make_field_findings(flags=flags, is_usable=False)


def _one_call(_: int) -> FieldFindings:
    return make_field_findings(calls=[Call.REFERRED] * 3)


@pytest.mark.parametrize("make", [_without_cells, _unusable, _one_call])
@pytest.mark.parametrize("kind", SOP_CLASSES)
def test_fields_with_little_in_them(
    kind: str, make: Callable[[int], FieldFindings], tmp_path: Path
) -> None:
    smear = make_smear_findings([make(1)])

    results = results_of(smear, lambda field: make_source(kind, field))

    assert errors_in(results, tmp_path) == []


def test_a_crowded_smear_of_many_fields(tmp_path: Path) -> None:
    """More cells than the report lists."""
    fields = [
        make_field_findings(
            sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}",
            width=1600,
            height=1200,
            calls=(Call.LEUKEMIC, Call.NORMAL, Call.REFERRED) * 25,
        )
        for number in range(1, 5)
    ]

    results = results_of(
        make_smear_findings(fields), lambda field: make_source("slide_coordinates", field)
    )

    assert errors_in(results, tmp_path) == []


def test_both_frames_of_a_multi_frame_source(tmp_path: Path) -> None:
    fields = [make_field_findings(frame=frame) for frame in (1, 2)]

    results = results_of(
        make_smear_findings(fields), lambda field: make_source("multi_frame", field)
    )

    assert sum(one.kind is ResultKind.ANNOTATED_FIELD for one in results) == 2
    assert errors_in(results, tmp_path) == []


def test_an_amended_report_over_two_studies(tmp_path: Path) -> None:
    fields = [
        make_field_findings(
            sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}",
            study_uid=f"1.2.826.0.1.3680043.10.999.10{number}",
            series_uid=f"1.2.826.0.1.3680043.10.999.20{number}",
        )
        for number in (1, 2)
    ]

    results = results_of(
        make_smear_findings(fields),
        lambda field: make_source("slide_coordinates", field),
        replace(CONTEXT, version=2),
    )

    assert errors_in(results, tmp_path) == []


@pytest.mark.parametrize(
    "order",
    [Order(), Order(accession="A-7", patient_id="P-9", specimen="S26-1", spacing_um=0.1)],
    ids=["nothing said", "an order"],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_send_wraps(tmp_path: Path, form: str, mode: str, order: Order) -> None:
    photograph = tmp_path / "field"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture()).convert(mode).save(photograph, form, icc_profile=profile)
    (read,) = read_files([photograph], order)
    assert read.image is not None
    file = tmp_path / "field.dcm"
    read.image.save_as(file, enforce_file_format=True)

    said = subprocess.run(
        ["dciodvfy", str(file)], capture_output=True, text=True, errors="replace", check=False
    )
    lines = f"{said.stdout}\n{said.stderr}".splitlines()

    assert any(line.startswith("SCImage") for line in lines)
    assert [line for line in lines if line.startswith("Error")] == []


def test_a_rejection_note_is_a_legal_key_object_selection(tmp_path: Path) -> None:
    results = results_of(
        make_smear_findings(), lambda field: make_source("secondary_capture", field)
    )
    headers = [dcmread(BytesIO(one.content), stop_before_pixels=True) for one in results]
    note = build_rejection_note(headers, version=2, issued_at=CONTEXT.issued_at)

    assert errors_in([note], tmp_path) == []


@pytest.mark.parametrize("sign_off", list(SignOff))
def test_reviewed_reports(sign_off: SignOff, tmp_path: Path) -> None:
    smear = reviewed(make_smear_findings(), sign_off)

    results = results_of(smear, lambda field: make_source("microscopic", field))

    assert errors_in(results, tmp_path) == []
