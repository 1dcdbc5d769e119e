"""Small source images of every SOP class that we take: whole by the standard, drawn by machine.

`make_source(kind)` gives the least that the IOD asks for; `is_full` adds the optional modules.
"""

from __future__ import annotations

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    VLMicroscopicImageStorage,
    VLPhotographicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
)

from config.codes import BLOOD, MICROSCOPE_SLIDE, Concept
from pipeline.domain import FieldFindings
from reporting.colour import srgb_profile
from tests.findings import make_picture

SOP_CLASSES = {
    "secondary_capture": SecondaryCaptureImageStorage,
    "multi_frame": MultiFrameTrueColorSecondaryCaptureImageStorage,
    "microscopic": VLMicroscopicImageStorage,
    "slide_coordinates": VLSlideCoordinatesMicroscopicImageStorage,
    "photographic": VLPhotographicImageStorage,
}
MODALITIES = {
    "secondary_capture": "OT",
    "multi_frame": "OT",
    "microscopic": "GM",
    "slide_coordinates": "SM",
    "photographic": "XC",
}
PHOTOMETRIC = ("RGB", "YBR_FULL", "YBR_FULL_422", "JPEG")


def make_source(
    kind: str, findings: FieldFindings, *, is_full: bool = True, photometric: str = "RGB"
) -> Dataset:
    """A source of the SOP class `kind`, showing the cells of `findings`."""
    source = _identity(kind, findings)
    if is_full:
        source.update(_optional())
    source.update(_image(kind, is_full=is_full))
    if "ContainerIdentifier" not in source:
        source.Laterality = None
    _add_pixels(source, make_picture(findings).pixels, photometric)
    if kind == "multi_frame":
        _repeat_frame(source, frames=2)
    return source


def _identity(kind: str, findings: FieldFindings) -> Dataset:
    source = Dataset()
    source.SOPClassUID = SOP_CLASSES[kind]
    source.SOPInstanceUID = findings.sop_instance_uid
    source.StudyInstanceUID = findings.study_uid
    source.SeriesInstanceUID = findings.series_uid
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(source, keyword, None)
    for keyword in ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"):
        setattr(source, keyword, None)
    source.AccessionNumber = None
    source.Modality = MODALITIES[kind]
    source.SeriesNumber = 1
    source.InstanceNumber = 1
    source.Manufacturer = None
    return source


def _optional() -> Dataset:
    """What a well-behaved device sends as well."""
    full = Dataset()
    full.SpecificCharacterSet = "ISO_IR 192"
    full.PatientName = "Μüller^Žofie=山田^花子"
    full.PatientID = "P-0042"
    full.IssuerOfPatientID = "HOSPITAL"
    full.PatientBirthDate = "19700101"
    full.PatientSex = "F"
    full.StudyDate, full.StudyTime = "20260102", "101112"
    full.StudyID = "S1"
    full.StudyDescription = "Blood smear"
    full.AccessionNumber = "A-77"
    full.ReferringPhysicianName = "Who^Doctor"
    full.TimezoneOffsetFromUTC = "+0900"
    full.Manufacturer = "Maker"
    full.ManufacturerModelName = "Scope 1"
    full.update(_specimen())
    return full


def _specimen() -> Dataset:
    described = Dataset()
    described.SpecimenIdentifier = "SPEC-1"
    described.SpecimenUID = "1.2.826.0.1.3680043.10.999.5"
    described.IssuerOfTheSpecimenIdentifierSequence = []
    described.SpecimenTypeCodeSequence = [_code(BLOOD)]
    described.SpecimenPreparationSequence = []
    specimen = Dataset()
    specimen.ContainerIdentifier = "SLIDE-9"
    specimen.IssuerOfTheContainerIdentifierSequence = []
    specimen.ContainerTypeCodeSequence = [_code(MICROSCOPE_SLIDE)]
    specimen.SpecimenDescriptionSequence = [described]
    return specimen


def _image(kind: str, *, is_full: bool) -> Dataset:
    image = Dataset()
    image.PatientOrientation = None
    if kind in ("secondary_capture", "multi_frame"):
        image.ConversionType = "DV"
        image.BurnedInAnnotation = "NO"
        image.ImageType = ["ORIGINAL", "PRIMARY"]
        return image
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.LossyImageCompression = "00"
    image.AcquisitionContextSequence = []
    image.ContentDate, image.ContentTime = "20260102", "101112"
    if is_full or kind == "slide_coordinates":
        image.update(_optical_path())
    if kind == "slide_coordinates":
        image.update(_specimen())
        image.update(_slide_coordinates(is_full=is_full))
    return image


def _optical_path() -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.IlluminationTypeCodeSequence = [_code(Concept(_DCM, "111744", "Brightfield illumination"))]
    path.IlluminationWaveLength = 550.0
    path.ICCProfile = srgb_profile()
    module = Dataset()
    module.OpticalPathSequence = [path]
    return module


_DCM = MICROSCOPE_SLIDE.system.__class__(url="urn:dcm", designator="DCM")


def _slide_coordinates(*, is_full: bool) -> Dataset:
    centre = Dataset()
    centre.XOffsetInSlideCoordinateSystem = 10.0
    centre.YOffsetInSlideCoordinateSystem = 20.0
    centre.ZOffsetInSlideCoordinateSystem = 0.0
    slide = Dataset()
    slide.FrameOfReferenceUID = "1.2.826.0.1.3680043.10.999.7"
    slide.PositionReferenceIndicator = "SLIDE_CORNER"
    slide.ImageCenterPointCoordinatesSequence = [centre]
    if is_full:
        slide.PixelSpacing = [0.00015, 0.00015]
        slide.ImageOrientationSlide = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]
    return slide


def _add_pixels(source: Dataset, pixels: np.ndarray, photometric: str) -> None:
    source.SamplesPerPixel = 3
    source.PhotometricInterpretation = photometric
    source.PlanarConfiguration = 0
    source.Rows, source.Columns = pixels.shape[:2]
    source.BitsAllocated = source.BitsStored = 8
    source.HighBit = 7
    source.PixelRepresentation = 0
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if photometric == "JPEG":
        _, jpeg = cv2.imencode(".jpg", pixels[..., ::-1])
        source.PhotometricInterpretation = "YBR_FULL_422"
        source.file_meta.TransferSyntaxUID = UID(JPEGBaseline8Bit)
        source.LossyImageCompression = "01"
        source.PixelData = encapsulate([jpeg.tobytes()])
    else:
        source.PixelData = _coded(pixels, photometric)
    source["PixelData"].VR = "OB"


def _coded(pixels: np.ndarray, photometric: str) -> bytes:
    if photometric == "RGB":
        return pixels.tobytes()
    ybr = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    if photometric == "YBR_FULL":
        return np.ascontiguousarray(ybr).tobytes()
    pairs = ybr.reshape(ybr.shape[0], -1, 2, 3)
    halved = np.stack(
        [pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], axis=-1
    )
    return halved.tobytes()


def _repeat_frame(source: Dataset, *, frames: int) -> None:
    source.NumberOfFrames = frames
    source.FrameIncrementPointer = 0x00181063
    source.FrameTime = 100.0
    source.PixelData = source.PixelData * frames


def _code(concept: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.dicom
    return item
