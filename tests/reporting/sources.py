"""Small source images of every SOP class that we take: whole by the standard, drawn by machine.

`make_source(kind)` gives the least that the IOD asks for; `is_full` adds the optional modules.
"""

from __future__ import annotations

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    VLMicroscopicImageStorage,
    VLPhotographicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
)

from config.codes import BLOOD, MICROSCOPE_SLIDE, Concept
from pipeline.domain import FieldFindings
from reporting.dicom.color import srgb_profile
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
GRAY_OR_PALETTE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
PHOTOMETRIC = ("RGB", "YBR_FULL", "YBR_FULL_422", "JPEG", "YBR_RCT", *GRAY_OR_PALETTE)
""""JPEG" is baseline JPEG of YBR_FULL_422; YBR_RCT comes as JPEG 2000."""


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
    put_pixels(source, make_picture(findings).pixels, photometric)
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
    center = Dataset()
    center.XOffsetInSlideCoordinateSystem = 10.0
    center.YOffsetInSlideCoordinateSystem = 20.0
    center.ZOffsetInSlideCoordinateSystem = 0.0
    slide = Dataset()
    slide.FrameOfReferenceUID = "1.2.826.0.1.3680043.10.999.7"
    slide.PositionReferenceIndicator = "SLIDE_CORNER"
    slide.ImageCenterPointCoordinatesSequence = [center]
    if is_full:
        slide.PixelSpacing = [0.00015, 0.00015]
        slide.ImageOrientationSlide = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]
    return slide


def put_pixels(source: Dataset, pixels: np.ndarray, photometric: str = "RGB") -> None:
    """Give `source` these RGB pixels, coded as `photometric` says, and the header for them."""
    source.Rows, source.Columns = pixels.shape[:2]
    source.BitsAllocated = source.BitsStored = 8
    source.HighBit = 7
    source.PixelRepresentation = 0
    source.file_meta = FileMetaDataset()
    source.file_meta.MediaStorageSOPClassUID = source.SOPClassUID
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    source.PhotometricInterpretation = photometric
    if photometric in GRAY_OR_PALETTE:
        _put_one_sample(source, pixels, photometric)
        return
    source.SamplesPerPixel = 3
    source.PlanarConfiguration = 0
    if photometric == "JPEG":
        _, jpeg = cv2.imencode(".jpg", pixels[..., ::-1])
        source.PhotometricInterpretation = "YBR_FULL_422"
        source.file_meta.TransferSyntaxUID = UID(JPEGBaseline8Bit)
        source.LossyImageCompression = "01"
        source.PixelData = encapsulate([jpeg.tobytes()])
    elif photometric == "YBR_RCT":
        source.file_meta.TransferSyntaxUID = UID(JPEG2000Lossless)
        source.PixelData = encapsulate([_jpeg_2000(pixels)])
    else:
        source.PixelData = _coded(pixels, photometric)
    source["PixelData"].VR = "OB"


def _put_one_sample(source: Dataset, pixels: np.ndarray, photometric: str) -> None:
    """The green of the picture as gray, or as the index into a palette of grays."""
    gray = pixels[..., 1]
    source.SamplesPerPixel = 1
    source.PixelData = (255 - gray if photometric == "MONOCHROME1" else gray).tobytes()
    source["PixelData"].VR = "OB"
    if photometric == "PALETTE COLOR":
        ramp = (np.arange(256, dtype="<u2") * 257).tobytes()
        for color in ("Red", "Green", "Blue"):
            setattr(source, f"{color}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(source, f"{color}PaletteColorLookupTableData", ramp)


def _jpeg_2000(pixels: np.ndarray) -> bytes:
    lossless = Dataset()
    lossless.SamplesPerPixel = 3
    lossless.PhotometricInterpretation = "RGB"
    lossless.PlanarConfiguration = 0
    lossless.Rows, lossless.Columns = pixels.shape[:2]
    lossless.BitsAllocated = lossless.BitsStored = 8
    lossless.HighBit = 7
    lossless.PixelRepresentation = 0
    lossless.file_meta = FileMetaDataset()
    lossless.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    lossless.PixelData = pixels.tobytes()
    lossless.compress(JPEG2000Lossless, generate_instance_uid=False)
    return next(generate_frames(lossless.PixelData, number_of_frames=1))


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
    if source.file_meta.TransferSyntaxUID.is_encapsulated:
        [frame] = generate_frames(source.PixelData, number_of_frames=1)
        source.PixelData = encapsulate([frame] * frames)
    else:
        source.PixelData = source.PixelData * frames
    source["PixelData"].VR = "OB"


def _code(concept: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.dicom
    return item
