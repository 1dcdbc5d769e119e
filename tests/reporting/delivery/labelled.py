"""Small results that carry the research-use label, for the tests of every way out."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from pipeline.domain import RESEARCH_USE_ONLY
from reporting.derived_uids import derived_id, derived_uid
from reporting.results import DICOM_MEDIA_TYPE, Result, ResultKind

SIDE = 32


def make_picture(
    name: str = "a",
    *,
    syntax: UID = ExplicitVRLittleEndian,
    kind: ResultKind = ResultKind.ANNOTATED_FIELD,
    side: int = SIDE,
) -> Result:
    """A Secondary Capture, uncompressed or as baseline JPEG."""
    uid = derived_uid("test", name)
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = derived_uid("test", "study")
    dataset.SeriesInstanceUID = derived_uid("test", "series")
    dataset.SeriesDescription = RESEARCH_USE_ONLY
    dataset.ImageComments = RESEARCH_USE_ONLY
    dataset.ContentQualification = "RESEARCH"
    dataset.PatientID = ""
    dataset.PatientName = ""
    dataset.Modality = "GM"
    dataset.BurnedInAnnotation = "YES"
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel = 3
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    _put_pixels(dataset, picture_pixels(side), syntax)
    return Result(
        kind=kind,
        name=f"{uid}.dcm",
        media_type=DICOM_MEDIA_TYPE,
        uid=uid,
        content=part_10(dataset, syntax),
    )


def picture_pixels(side: int = SIDE) -> np.ndarray:
    """A soft color ramp: JPEG keeps it within a few gray levels."""
    x, y = np.meshgrid(np.linspace(40, 220, side), np.linspace(60, 200, side))
    return np.stack([x, y, np.full_like(x, 130)], axis=-1).astype(np.uint8)


def part_10(dataset: Dataset, syntax: UID) -> bytes:
    """The DICOM file of a data set."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    dataset.save_as(
        buffer, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=True
    )
    return buffer.getvalue()


def noisy_png(side: int) -> bytes:
    """A picture that PNG hardly compresses, as photographs are: some 2 bytes a pixel."""
    noise = np.random.default_rng(7).integers(0, 48, (side, side, 3), dtype=np.uint8)
    picture = np.clip(picture_pixels(side).astype(int) + noise, 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".png", picture)[1].tobytes())


def make_illustrated_bundle(*, side: int, pdf: bytes = b"%PDF-1.4 a page") -> Result:
    """A Bundle of a Media with its picture and a DiagnosticReport with its page."""
    bundle = json.loads(make_bundle("illustrated", ids=("m1", "r1")).content)
    media, report = (entry["resource"] for entry in bundle["entry"])
    media["resourceType"] = "Media"
    media["identifier"] = [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"}]
    media["content"] = {
        "contentType": "image/png",
        "data": base64.b64encode(noisy_png(side)).decode(),
        "title": "Gallery",
    }
    report["resourceType"] = "DiagnosticReport"
    report["presentedForm"] = [
        {"contentType": "application/pdf", "data": base64.b64encode(pdf).decode()}
    ]
    for entry in bundle["entry"]:
        resource = entry["resource"]
        entry["request"]["url"] = f"{resource['resourceType']}/{resource['id']}"
    return replace(
        make_bundle("illustrated"), content=json.dumps(bundle, separators=(",", ":")).encode()
    )


def make_bundle(name: str = "bundle", *, ids: Sequence[str] = ("o1", "o2")) -> Result:
    """A transaction Bundle of Observations with ids of our own."""
    entries = [
        {
            "resource": {
                "resourceType": "Observation",
                "id": one,
                "status": "preliminary",
                "meta": {
                    "security": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
                            "code": "HRESCH",
                        }
                    ]
                },
                "code": {"text": "Blasts"},
                "note": [{"text": RESEARCH_USE_ONLY}],
            },
            "request": {"method": "PUT", "url": f"Observation/{one}"},
        }
        for one in ids
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    uid = derived_id("test", name)
    return Result(
        kind=ResultKind.FHIR_BUNDLE,
        name=f"{uid}.json",
        media_type="application/fhir+json",
        uid=uid,
        content=json.dumps(bundle).encode("utf-8"),
    )


def _put_pixels(dataset: Dataset, pixels: np.ndarray, syntax: UID) -> None:
    if syntax != JPEGBaseline8Bit:
        dataset.PhotometricInterpretation = "RGB"
        dataset.PixelData = pixels.tobytes()
        return
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = "10"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    is_encoded, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    assert is_encoded
    dataset.PixelData = encapsulate([encoded.tobytes()])


def make_message(name: str = "message") -> Result:
    """An ORU^R01 with its control id."""
    uid = derived_id("test", name)
    segments = (
        f"MSH|^~\\&|SMEARLINK||||20260102030405+0000||ORU^R01^ORU_R01|{uid[:20]}|P|2.5.1",
        "OBR|1|||69738-3^Differential panel^LN",
        f"NTE|1||{RESEARCH_USE_ONLY}",
        "",
    )
    return Result(
        kind=ResultKind.HL7_MESSAGE,
        name=f"{uid}.hl7",
        media_type="application/hl7-v2",
        uid=uid,
        content="\r".join(segments).encode("utf-8"),
    )
