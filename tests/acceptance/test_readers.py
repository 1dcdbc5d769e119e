"""Programs that nobody here wrote read every kind of result, and find what `analyse` says in JSON.

highdicom, dcmqi, dcmjs, wsidicom and DCMTK read the DICOM objects, hl7apy (strict) the HL7 message,
fhirclient (strict) the FHIR Bundle. Each compares with the same lines of `smearlink analyse`.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import cv2
import highdicom as hd
import numpy as np
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from numpy.typing import NDArray

from reporting.results import DICOM_KINDS, ResultKind
from tests.acceptance.read_sets import (
    HEIGHT,
    UM_PER_PX,
    WIDTH,
    ReadSet,
    filled,
    make_read_sets,
    polygon_area,
)
from tests.reporting.headers import ISSUED_AT

pytestmark = pytest.mark.peers

INSTALL = "bash tests/install_peers.sh"
CALLS = ("leukemic", "normal", "referred")
OUTLINE_AREA = 1e-3
"""Of a cell's area: what coordinates of 32 bits, far from a slide's corner, leave of it."""
DCMJS = Path(__file__).parent / "dcmjs_reader"
PATIENT_NAME = "Μüller^Žofie=山田^花子"
ISSUED = ISSUED_AT.strftime("%Y%m%d%H%M%S")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReadSet]:
    made = make_read_sets(tmp_path_factory.mktemp("readers"))
    # Otherwise the comparisons below would compare little.
    assert made["slide"].count("leukemic") > 2
    assert len(made["slide"].counts_by_type()) > 3
    assert {one.kind for one in made["slide"].results} == set(ResultKind)
    return made


@pytest.fixture(scope="module")
def slide(sets: dict[str, ReadSet]) -> ReadSet:
    return sets["slide"]


def expected_figures(cell: dict[str, Any]) -> dict[str, float]:
    """What the JSON says of a cell, under the names of the report."""
    shape = cell["cell"]["shape"]
    return {
        "Probability of being leukemic": cell["prediction"]["leukemic_probability"],
        "Area": shape["area_um2"],
        "Perimeter": shape["perimeter_um"],
        "Nucleus to cell area ratio": shape["nucleus_to_cell_ratio"],
    }


def expected_counts(read: ReadSet) -> dict[str, int]:
    """What the JSON says of the smear, under the names of the report; no type told is no cell."""
    counted = read.count("leukemic") + read.count("normal")
    by_type = {
        f"{name.replace('_', ' ').capitalize()}, count": count
        for name, count in read.counts_by_type().items()
    }
    return {
        "White cells counted": counted,
        "Cells called leukemic": read.count("leukemic"),
        "Cells called normal": read.count("normal"),
        "Cells referred to an expert": read.count("referred"),
        **by_type,
    }


def same_report(groups: dict[str, dict[str, float]], read: ReadSet) -> None:
    """The measurement groups of a report, by Tracking Identifier, say what the JSON says."""
    assert set(groups) == {"smear", *read.cells}
    for name, count in expected_counts(read).items():
        assert groups["smear"][name] == count, name
    for name, cell in read.cells.items():
        assert groups[name] == pytest.approx(expected_figures(cell), rel=1e-5, abs=1e-6), name


def same_outline(points: Any, cell: dict[str, Any]) -> None:
    """A polygon in pixels of the source has the cell's area, and lies on its box."""
    area_px = cell["cell"]["shape"]["area_um2"] / UM_PER_PX**2
    assert polygon_area(points) == pytest.approx(area_px, rel=OUTLINE_AREA)
    box = cell["cell"]["box"]
    x, y = np.asarray(points)[:, 0], np.asarray(points)[:, 1]
    found = [x.min(), y.min(), x.max(), y.max()]
    expected = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
    np.testing.assert_allclose(found, expected, atol=1.5)


def expected_mask(read: ReadSet, sop_instance_uid: str, label: str) -> NDArray[np.uint8]:
    """What the JSON's contours cover of one segment, by its label."""
    if label.startswith("Nuclei"):
        cells = [cell for call in CALLS for cell in read.in_field(sop_instance_uid, call)]
        return filled([one for cell in cells for one in cell["cell"]["nucleus_contours"]])
    call = label.split()[2]
    return filled([cell["cell"]["contour"] for cell in read.in_field(sop_instance_uid, call)])


def source_of(segmentation: Any) -> str:
    frame = segmentation.PerFrameFunctionalGroupsSequence[0]
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    return str(source.ReferencedSOPInstanceUID)


class TestHighdicom:
    def test_the_report(self, slide: ReadSet) -> None:
        [file] = slide.files(ResultKind.STRUCTURED_REPORT)
        report = hd.sr.srread(file)
        content = cast(hd.sr.MeasurementReport, report.content)
        groups = [
            *content.get_image_measurement_groups(),
            *content.get_planar_roi_measurement_groups(),
        ]

        same_report(
            {
                str(group.tracking_identifier): {
                    one.name.meaning: float(one.value) for one in group.get_measurements()
                }
                for group in groups
            },
            slide,
        )
        for group in content.get_planar_roi_measurement_groups():
            same_outline(group.roi.value, slide.cells[str(group.tracking_identifier)])
        assert str(report.PatientName) == PATIENT_NAME
        assert (report.PatientID, report.AccessionNumber) == ("P-0042", "A-77")
        assert report.PreliminaryFlag == "PRELIMINARY"
        assert report.VerificationFlag == "UNVERIFIED"

    @pytest.mark.parametrize("kind", ["slide", "photograph"])
    def test_the_masks(self, kind: str, sets: dict[str, ReadSet]) -> None:
        read = sets[kind]
        for file in read.files(ResultKind.SEGMENTATION):
            segmentation = hd.seg.segread(file)
            uid = source_of(segmentation)
            [masks] = segmentation.get_pixels_by_source_instance([uid], combine_segments=False)
            for number in segmentation.segment_numbers:
                label = segmentation.get_segment_description(number).segment_label
                np.testing.assert_array_equal(
                    masks[..., number - 1], expected_mask(read, uid, label), label
                )

    def test_the_annotations(self, slide: ReadSet) -> None:
        for file in slide.files(ResultKind.BULK_ANNOTATIONS):
            read = hd.ann.annread(file)
            [reference] = read.ReferencedImageSequence
            for group in read.get_annotation_groups():
                call = group.label.split()[2]
                cells = slide.in_field(str(reference.ReferencedSOPInstanceUID), call)
                polygons = group.get_graphic_data(read.annotation_coordinate_type)
                names, values, _ = group.get_measurements()
                assert len(polygons) == len(cells)
                for polygon, row, cell in zip(polygons, values, cells, strict=True):
                    figures = expected_figures(cell)
                    for name, value in zip(names, row, strict=True):
                        assert value == pytest.approx(figures[name.meaning], rel=1e-5, abs=1e-6)
                    area_um2 = polygon_area(polygon) * 1e6
                    assert area_um2 == pytest.approx(figures["Area"], rel=OUTLINE_AREA)

    def test_the_key_objects_name_all_others(self, slide: ReadSet) -> None:
        [dataset] = slide.objects(ResultKind.KEY_OBJECTS)
        document = hd.ko.KeyObjectSelectionDocument.from_dataset(dataset)

        named = {str(one.referenced_sop_instance_uid) for one in document.content.get_references()}

        assert named == dicom_uids(slide) - {dataset.SOPInstanceUID} | set(slide.sources)


def dicom_uids(read: ReadSet) -> set[str]:
    return {one.uid for one in read.results if one.kind in DICOM_KINDS}


def program(name: str) -> str:
    """A program of a Python package, beside the interpreter; the test skips without it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed: {INSTALL}")
    return found


class TestDcmqi:
    def test_the_report(self, slide: ReadSet, tmp_path: Path) -> None:
        [file] = slide.files(ResultKind.STRUCTURED_REPORT)
        out = tmp_path / "report.json"

        done = run(program("tid1500reader"), "--inputDICOM", file, "--outputMetadata", out)

        assert done.returncode == 0, done.stderr
        report = json.loads(out.read_text("utf-8"))
        same_report(
            {
                group["TrackingIdentifier"]: {
                    one["quantity"]["CodeMeaning"]: float(one["value"])
                    for one in group["measurementItems"]
                }
                for group in report["Measurements"]
            },
            slide,
        )
        assert report["CompletionFlag"] == "COMPLETE"
        assert report["VerificationFlag"] == "UNVERIFIED"

    def test_the_masks_of_photographs(self, sets: dict[str, ReadSet], tmp_path: Path) -> None:
        read = sets["photograph"]
        for number, file in enumerate(read.files(ResultKind.SEGMENTATION)):
            [uid] = {source_of(one) for one in [read.objects(ResultKind.SEGMENTATION)[number]]}
            folder = tmp_path / str(number)
            folder.mkdir()

            done = run(
                program("segimage2itkimage"),
                *("--inputDICOM", file, "--outputDirectory", folder, "--outputType", "nrrd"),
            )

            assert done.returncode == 0, done.stderr
            segments = json.loads((folder / "meta.json").read_text("utf-8"))["segmentAttributes"]
            for place, [segment] in enumerate(segments, start=1):
                mask, spacing_mm = nrrd(folder / f"{place}.nrrd")
                expected = expected_mask(read, uid, segment["SegmentLabel"])
                np.testing.assert_array_equal(mask > 0, expected > 0, segment["SegmentLabel"])
                assert spacing_mm == pytest.approx([UM_PER_PX / 1000] * 2)

    def test_masks_on_a_slide_are_refused_in_words(self, slide: ReadSet, tmp_path: Path) -> None:
        """It knows places in a patient only; it says so, and does not end with a fault."""
        file = slide.files(ResultKind.SEGMENTATION)[0]

        done = run(
            program("segimage2itkimage"),
            *("--inputDICOM", file, "--outputDirectory", tmp_path, "--outputType", "nrrd"),
        )

        assert done.returncode > 0
        assert "Plane Orientation (Patient) is missing" in done.stdout + done.stderr


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(one) for one in command],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def nrrd(file: Path) -> tuple[NDArray[np.uint8], list[float]]:
    """The one slice of a NRRD file, and the size of its pixels in mm."""
    head, _, body = file.read_bytes().partition(b"\n\n")
    fields = dict(re.findall(r"^([\w ]+): (.*)$", head.decode(), re.MULTILINE))
    kinds = {"unsigned char": "u1", "unsigned short": "<u2", "short": "<i2"}
    content = gzip.decompress(body) if fields["encoding"] == "gzip" else body
    axes = re.findall(r"\(([^)]*)\)", fields["space directions"])
    spacing = [max(abs(float(one)) for one in axis.split(",")) for axis in axes[:2]]
    pixels = np.frombuffer(content, kinds[fields["type"]]).reshape(HEIGHT, WIDTH)
    return pixels.astype(np.uint8), spacing


class TestDcmjs:
    @pytest.fixture(scope="class")
    @staticmethod
    def objects(slide: ReadSet) -> dict[str, list[dict[str, Any]]]:
        """Every DICOM object as dcmjs reads it, by modality."""
        if shutil.which("node") is None or not (DCMJS / "node_modules").is_dir():
            pytest.skip(f"Node or dcmjs is not installed: {INSTALL}")
        files = [slide.folder / one.name for one in slide.results if one.kind in DICOM_KINDS]
        done = run("node", DCMJS / "read.mjs", *files)
        assert done.returncode == 0, done.stderr
        found: dict[str, list[dict[str, Any]]] = {}
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                read = json.loads(line)
                found.setdefault(read["Modality"], []).append(read)
        assert set(found) == {"SR", "SEG", "ANN", "PR", "KO", "OT"}
        return found

    def test_who_and_when(self, objects: dict[str, list[dict[str, Any]]], slide: ReadSet) -> None:
        alphabetic, ideographic = PATIENT_NAME.split("=")
        every = [one for group in objects.values() for one in group]
        zone = datetime.strptime(every[0]["TimezoneOffsetFromUTC"], "%z").tzinfo
        local = ISSUED_AT.astimezone(zone)

        assert {one["SOPInstanceUID"] for one in every} == dicom_uids(slide)
        for one in every:
            [name] = one["PatientName"]
            assert (name["Alphabetic"], name["Ideographic"]) == (alphabetic, ideographic)
            assert (one["PatientID"], one["AccessionNumber"]) == ("P-0042", "A-77")
            assert one["SeriesDate"] + one["SeriesTime"] == local.strftime("%Y%m%d%H%M%S")
            assert one["ContentQualification"] == "RESEARCH"

    def test_the_report(self, objects: dict[str, list[dict[str, Any]]], slide: ReadSet) -> None:
        [report] = objects["SR"]
        groups = {
            child_of(group, "Tracking Identifier")["TextValue"]: group
            for group in items_of(report, "Measurement Group")
        }

        same_report(
            {
                name: {
                    meaning(one): float(_first(one["MeasuredValueSequence"])["NumericValue"])
                    for one in children_of(group)
                    if one["ValueType"] == "NUM"
                }
                for name, group in groups.items()
            },
            slide,
        )
        for name, cell in slide.cells.items():
            region = child_of(groups[name], "Image Region")
            same_outline(np.reshape(region["GraphicData"], (-1, 2)), cell)

    def test_the_masks(self, objects: dict[str, list[dict[str, Any]]], slide: ReadSet) -> None:
        for read in objects["SEG"]:
            [frame, *_] = read["PerFrameFunctionalGroupsSequence"]
            source = _first(_first(frame["DerivationImageSequence"])["SourceImageSequence"])
            packed = np.frombuffer(base64.b64decode(_first(read["PixelData"])), np.uint8)
            bits = np.unpackbits(packed, bitorder="little")[: len(packed) * 8]
            masks = bits[: read["NumberOfFrames"] * HEIGHT * WIDTH].reshape(-1, HEIGHT, WIDTH)
            for mask, segment in zip(masks, read["SegmentSequence"], strict=True):
                label = segment["SegmentLabel"]
                expected = expected_mask(slide, source["ReferencedSOPInstanceUID"], label)
                np.testing.assert_array_equal(mask, expected, label)

    def test_the_annotations(
        self, objects: dict[str, list[dict[str, Any]]], slide: ReadSet
    ) -> None:
        for read in objects["ANN"]:
            uid = _first(read["ReferencedImageSequence"])["ReferencedSOPInstanceUID"]
            for group in read["AnnotationGroupSequence"]:
                cells = slide.in_field(uid, group["AnnotationGroupLabel"].split()[2])
                points = np.frombuffer(_bytes(group["PointCoordinatesData"]), "<f4")
                starts = np.frombuffer(_bytes(group["LongPrimitivePointIndexList"]), "<u4")
                polygons = np.split(points, starts[1:].astype(int) - 1)
                areas = [polygon_area(one.reshape(-1, 2)) * 1e6 for one in polygons]
                expected = [cell["cell"]["shape"]["area_um2"] for cell in cells]
                assert areas == pytest.approx(expected, rel=OUTLINE_AREA)

    def test_the_presentation_states(
        self, objects: dict[str, list[dict[str, Any]]], slide: ReadSet
    ) -> None:
        for read in objects["PR"]:
            series = _first(read["ReferencedSeriesSequence"])
            uid = _first(series["ReferencedImageSequence"])["ReferencedSOPInstanceUID"]
            for annotation in read["GraphicAnnotationSequence"]:
                if annotation["GraphicLayer"].lower() not in CALLS:
                    continue
                cells = slide.in_field(uid, annotation["GraphicLayer"].lower())
                words = [one["UnformattedTextValue"] for one in annotation["TextObjectSequence"]]
                assert words == [
                    f"#{cell['cell']['index']} "
                    f"{cell['prediction']['leukemic_probability']:.2f} {cell['call']}"
                    for cell in cells
                ]
                for graphic, cell in zip(annotation["GraphicObjectSequence"], cells, strict=True):
                    same_outline(np.reshape(graphic["GraphicData"], (-1, 2)), cell)

    def test_the_key_objects_name_all_others(
        self, objects: dict[str, list[dict[str, Any]]], slide: ReadSet
    ) -> None:
        [read] = objects["KO"]
        named = {
            _first(one["ReferencedSOPSequence"])["ReferencedSOPInstanceUID"]
            for one in children_of(read)
            if one["ValueType"] in ("IMAGE", "COMPOSITE")
        }

        assert named == dicom_uids(slide) - {read["SOPInstanceUID"]} | set(slide.sources)

    def test_the_pictures(self, objects: dict[str, list[dict[str, Any]]], slide: ReadSet) -> None:
        """The bytes that it takes out of an encapsulated object are the JPEG as it went in."""
        fields = [one for one in objects["OT"] if one["SeriesNumber"] == 9002]

        assert len(fields) == len(slide.lines)
        for read in objects["OT"]:
            jpeg = np.frombuffer(base64.b64decode(_first(read["PixelData"])), np.uint8)
            picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
            assert picture.shape == (read["Rows"], read["Columns"], 3)


def _first(sequence: Any) -> Any:
    """dcmjs gives a sequence of one item as the item or as a list."""
    return sequence[0] if isinstance(sequence, list) else sequence


def _bytes(value: Any) -> bytes:
    return base64.b64decode(_first(value))


def children_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    found = item.get("ContentSequence", [])
    return found if isinstance(found, list) else [found]


def meaning(item: dict[str, Any]) -> str:
    return str(_first(item["ConceptNameCodeSequence"])["CodeMeaning"])


def child_of(item: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in children_of(item) if meaning(one) == name)


def items_of(item: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    for one in children_of(item):
        if "ConceptNameCodeSequence" in one and meaning(one) == name:
            yield one
        yield from items_of(one, name)


class TestWsidicom:
    def test_the_annotations(self, slide: ReadSet) -> None:
        annotations = pytest.importorskip(
            "wsidicom.graphical_annotations", reason=f"wsidicom is not installed: {INSTALL}"
        )
        for file, dataset in zip(
            slide.files(ResultKind.BULK_ANNOTATIONS),
            slide.objects(ResultKind.BULK_ANNOTATIONS),
            strict=True,
        ):
            [image] = dataset.ReferencedImageSequence
            [read] = annotations.AnnotationInstance.open([file])
            for group in read.groups:
                call = group.label.split()[2]
                cells = slide.in_field(str(image.ReferencedSOPInstanceUID), call)
                assert group.number_of_annotations == len(cells)
                for one, cell in zip(group.annotations, cells, strict=True):
                    figures = expected_figures(cell)
                    area_um2 = polygon_area(one.geometry.to_list_coords()) * 1e6
                    assert area_um2 == pytest.approx(figures["Area"], rel=OUTLINE_AREA)
                    for measured in one.measurements:
                        expected = figures[measured.code.meaning]
                        assert measured.value == pytest.approx(expected, rel=1e-5, abs=1e-6)


class TestDcmtk:
    @pytest.mark.skipif(
        shutil.which("dsr2xml") is None, reason=f"DCMTK is not installed: {INSTALL}"
    )
    def test_the_report(self, slide: ReadSet) -> None:
        [file] = slide.files(ResultKind.STRUCTURED_REPORT)

        done = run("dsr2xml", file)

        assert done.returncode == 0, done.stderr
        report = ElementTree.fromstring(done.stdout)  # noqa: S314 (what DCMTK just wrote)
        groups: dict[str, dict[str, float]] = {}
        for group in report.iter("container"):
            if group.findtext("concept/meaning") == "Measurement Group":
                texts = group.findall("text")
                name = next(
                    one.findtext("value")
                    for one in texts
                    if one.findtext("concept/meaning") == "Tracking Identifier"
                )
                groups[str(name)] = {
                    str(one.findtext("concept/meaning")): float(str(one.findtext("value")))
                    for one in group.findall("num")
                }
        same_report(groups, slide)
        assert report.findtext("patient/id") == "P-0042"
        assert report.findtext("study/accession/number") == "A-77"
        flags = report.find("document/preliminary"), report.find("document/verification")
        assert [one.get("flag") for one in flags if one is not None] == [
            "PRELIMINARY",
            "UNVERIFIED",
        ]

    @pytest.mark.skipif(
        shutil.which("dcmj2pnm") is None, reason=f"DCMTK is not installed: {INSTALL}"
    )
    def test_the_pictures(self, slide: ReadSet, tmp_path: Path) -> None:
        for kind in (ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY):
            for file, dataset in zip(slide.files(kind), slide.objects(kind), strict=True):
                out = tmp_path / f"{file.stem}.png"

                done = run("dcmj2pnm", "--write-png", file, out)

                assert done.returncode == 0, done.stderr
                decoded = cv2.imread(str(out))
                assert decoded is not None
                shown = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(int)
                assert np.abs(shown - dataset.pixel_array.astype(int)).mean() < 1.0

    @pytest.mark.skipif(
        shutil.which("dcmdump") is None, reason=f"DCMTK is not installed: {INSTALL}"
    )
    def test_every_object(self, slide: ReadSet) -> None:
        for result in slide.results:
            if result.kind in DICOM_KINDS:
                wanted = ("+P", "PatientID", "+P", "SOPInstanceUID")

                done = run("dcmdump", *wanted, slide.folder / result.name)

                assert done.returncode == 0, done.stderr
                assert "[P-0042]" in done.stdout
                assert f"[{result.uid}]" in done.stdout


def test_hl7apy_reads_the_message_strictly(slide: ReadSet) -> None:
    text = slide.content(ResultKind.HL7_MESSAGE).decode()

    message = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
    message.validate()

    result = message.oru_r01_patient_result
    order = result.oru_r01_order_observation
    assert result.oru_r01_patient.pid.pid_3.to_er7() == "P-0042^^^HOSPITAL"
    assert order.obr.obr_2.to_er7() == "A-77"
    assert order.obr.obr_25.to_er7() == "P"
    assert order.obr.obr_22.to_er7() == f"{ISSUED}+0000"
    values = {
        one.obx.obx_3.to_er7().split("^")[0]: one.obx.obx_5.to_er7()
        for one in order.oru_r01_observation
    }
    assert {one.obx.obx_11.to_er7() for one in order.oru_r01_observation} == {"P"}
    assert values["cells-found"] == str(len(slide.cells))
    assert values["white-cells-counted"] == str(slide.count("leukemic") + slide.count("normal"))
    assert values["cells-referred"] == str(slide.count("referred"))
    for name, count in slide.counts_by_type().items():
        assert values[f"{'blasts' if name == 'blast' else name}-count"] == str(count)


def test_fhirclient_reads_the_bundle_strictly(slide: ReadSet) -> None:
    bundles = pytest.importorskip(
        "fhirclient.models.bundle", reason=f"fhirclient is not installed: {INSTALL}"
    )
    bundle = bundles.Bundle(json.loads(slide.content(ResultKind.FHIR_BUNDLE)), strict=True)
    resources = [one.resource for one in bundle.entry]
    [report] = [one for one in resources if one.resource_type == "DiagnosticReport"]
    observed = {one.code.text: one for one in resources if one.resource_type == "Observation"}

    assert report.status == "preliminary"
    assert {one.status for one in observed.values()} == {"preliminary"}
    assert report.subject.identifier.value == "P-0042"
    assert report.basedOn[0].identifier.value == "A-77"
    assert report.issued.date == ISSUED_AT
    assert observed["Cells found"].valueInteger == len(slide.cells)
    counted = slide.count("leukemic") + slide.count("normal")
    assert observed["White cells counted on the smear"].valueInteger == counted
    assert observed["Cells referred to an expert"].valueInteger == slide.count("referred")
    for name, count in slide.counts_by_type().items():
        share = observed[f"{name.replace('_', ' ').capitalize()}s/Leukocytes in Blood"]
        words = "Cells called leukemic" if name == "blast" else "Cells seen"
        [seen] = [one.valueInteger for one in share.component if one.code.text == words]
        assert seen == count
        assert share.valueQuantity.value == pytest.approx(100 * count / counted, abs=0.5)
