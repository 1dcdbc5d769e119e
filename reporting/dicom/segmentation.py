"""Builds cells by call and their nuclei as a Segmentation (PS3.3 A.51), one bit per pixel.

BINARY and not LABELMAP: viewers and archives in service read it, and cells and their nuclei
overlap. Each frame maps pixel by pixel to its source frame, and lies in the source's frame of
reference. A photograph has none: its masks have one of their own, millimeters from its upper left
pixel, because readers made for patients (dcmqi, OHIF) draw no mask without a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag
from pydicom.valuerep import DSfloat

from config.codes import (
    ARTIFICIAL_INTELLIGENCE,
    LEUKOCYTE,
    MODALITY_SEGMENTATION,
    NUCLEUS,
    Concept,
)
from config.dicom_codes import ANATOMICAL_STRUCTURE, SEGMENTATION_DERIVATION
from pipeline.domain import RESEARCH_USE_ONLY, Call, Contour, FieldFindings, ScaleSource
from pipeline.rendering.pen import CALL_COLOURS, GRAY, Color
from reporting.derived_uids import derived_uid
from reporting.dicom.attributes import Attributes
from reporting.dicom.color import cielab
from reporting.dicom.common_modules import (
    Authorship,
    InstanceReference,
    common_instance_references,
    common_modules,
    date_and_time,
)
from reporting.dicom.secondary_capture import lossy_history
from reporting.dicom.slide_coordinates import UM_PER_MM, frame_of_reference
from reporting.dicom.source_attributes import SourceFrame, code_item, image_reference
from reporting.results import ObjectReference

DEPTH_MM = 0.001
"""A smear is one layer of cells, and an oil objective sees about a micrometre of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Segment:
    """One segment: what it shows and the outlines that fill it."""

    label: str
    property_type: Concept
    color: Color
    outlines: Sequence[Contour]
    is_reviewed: bool
    """Whether people decided what one of its cells is."""


def build_segmentation(
    findings: FieldFindings, *, reference: ObjectReference, author: Authorship, source: SourceFrame
) -> Dataset:
    """The masks of one field; a segment without a cell is left out. Needs at least one cell."""
    segments = list(_segments(findings))
    dataset = common_modules(reference, author, modality=MODALITY_SEGMENTATION.code)
    dataset.update(_image(findings, author, source))
    dataset.update(_dimensions(reference))
    dataset.update(frame_of_reference(source.header) or _own_frame_of_reference(source))
    dataset.update(
        common_instance_references(
            reference.study_instance_uid, [InstanceReference.of_source(source.header)]
        )
    )
    dataset.SegmentSequence = [
        _segment_item(number, segment, author) for number, segment in enumerate(segments, start=1)
    ]
    dataset.NumberOfFrames = len(segments)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(findings)]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame_groups(number, source) for number in range(1, len(segments) + 1)
    ]
    if not source.header.get("FrameOfReferenceUID"):
        _put_in_own_frame_of_reference(dataset)
    dataset.PixelData = _bits(segments, findings)
    dataset["PixelData"].VR = "OB"
    return dataset


def _segments(findings: FieldFindings) -> Iterator[_Segment]:
    for call in Call:
        cells = [finding for finding in findings.cells if finding.call is call]
        if cells:
            yield _Segment(
                label=f"White cells {call} (research)",
                property_type=LEUKOCYTE,
                color=CALL_COLOURS[call],
                outlines=[finding.cell.contour for finding in cells],
                is_reviewed=any(finding.decision for finding in cells),
            )
    nuclei = [n for finding in findings.cells for n in finding.cell.nucleus_contours]
    if nuclei:
        yield _Segment(
            label="Nuclei (research)",
            property_type=NUCLEUS,
            color=GRAY,
            outlines=nuclei,
            is_reviewed=any(finding.decision for finding in findings.cells),
        )


def _bits(segments: Sequence[_Segment], findings: FieldFindings) -> bytes:
    """The masks one after the other, one bit per pixel, the first pixel lowest (PS3.5 8.1.1)."""
    masks = np.zeros((len(segments), findings.height, findings.width), dtype=np.uint8)
    for mask, segment in zip(masks, segments, strict=True):
        for outline in segment.outlines:  # one by one: together the even-odd rule would fill them
            cv2.fillPoly(mask, [outline], 1)
    packed = np.packbits(masks, bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)


def _image(findings: FieldFindings, author: Authorship, source: SourceFrame) -> Dataset:
    """General Image, Image Pixel and Segmentation Image (C.7.6.1, C.7.6.3, C.8.20.2)."""
    image = Attributes()
    image.PatientOrientation = None
    image.ImageType = ["DERIVED", "PRIMARY"]
    image.ContentDate, image.ContentTime = date_and_time(author)
    image.ContentLabel = "RESEARCH_USE"
    image.ContentDescription = RESEARCH_USE_ONLY
    image.ContentCreatorName = None
    image.BurnedInAnnotation = "NO"
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = findings.height, findings.width
    image.BitsAllocated = image.BitsStored = 1
    image.HighBit = image.PixelRepresentation = 0
    image.update(lossy_history([source.header], own_ratio=None))
    image.SegmentationType = "BINARY"
    image.SegmentsOverlap = "YES"
    return image


def _dimensions(reference: ObjectReference) -> Dataset:
    """Frames are told apart by their segment (C.7.6.17)."""
    organization = Attributes()
    organization.DimensionOrganizationUID = derived_uid("dimension", reference.sop_instance_uid)
    index = Attributes()
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer = _tag("ReferencedSegmentNumber")
    index.FunctionalGroupPointer = _tag("SegmentIdentificationSequence")
    index.DimensionDescriptionLabel = "Segment number"
    dimensions = Attributes()
    dimensions.DimensionOrganizationSequence = [organization]
    dimensions.DimensionIndexSequence = [index]
    return dimensions


def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not in the data dictionary")
    return BaseTag(tag)


def _segment_item(number: int, segment: _Segment, author: Authorship) -> Dataset:
    """C.8.20.4."""
    item = Attributes()
    item.SegmentNumber = number
    item.SegmentLabel = segment.label
    item.SegmentDescription = RESEARCH_USE_ONLY
    item.SegmentAlgorithmType = "SEMIAUTOMATIC" if segment.is_reviewed else "AUTOMATIC"
    item.SegmentAlgorithmName = author.software
    item.SegmentationAlgorithmIdentificationSequence = [algorithm_item(author)]
    item.SegmentedPropertyCategoryCodeSequence = [code_item(ANATOMICAL_STRUCTURE)]
    item.SegmentedPropertyTypeCodeSequence = [code_item(segment.property_type)]
    item.RecommendedDisplayCIELabValue = cielab(segment.color)
    return item


def algorithm_item(author: Authorship) -> Dataset:
    """Algorithm Identification Macro (PS3.3 Table 10-19)."""
    item = Attributes()
    item.AlgorithmFamilyCodeSequence = [code_item(ARTIFICIAL_INTELLIGENCE)]
    item.AlgorithmName = author.model.name
    item.AlgorithmVersion = author.model.version
    item.AlgorithmParameters = f"sha256={author.model.sha256}{author.model.calibration_note}"
    item.AlgorithmSource = author.software
    return item


def _shared_groups(findings: FieldFindings) -> Dataset:
    """Pixel Measures (C.7.6.16.2.1); an assumed size of a pixel is no measurement and is left out.

    OHIF 3.12 ends with an empty page where the macro is absent.
    """
    measures = Attributes()
    if findings.scale.source is not ScaleSource.ASSUMED:
        spacing_mm = DSfloat(findings.scale.um_per_px / UM_PER_MM, auto_format=True)
        measures.PixelSpacing = [spacing_mm, spacing_mm]
    measures.SliceThickness = DEPTH_MM
    groups = Attributes()
    groups.PixelMeasuresSequence = [measures]
    return groups


def _own_frame_of_reference(source: SourceFrame) -> Dataset:
    """Frame of Reference Module (C.7.4.1) of one photograph; no other picture lies in it."""
    module = Attributes()
    module.FrameOfReferenceUID = derived_uid(
        "frame of reference", str(source.header.SOPInstanceUID), str(source.frame)
    )
    module.PositionReferenceIndicator = None
    return module


def _put_in_own_frame_of_reference(segmentation: Dataset) -> None:
    """Every frame has its upper left pixel at the origin, and is neither turned nor mirrored.

    Plane Orientation and Plane Position (C.7.6.16.2.4, C.7.6.16.2.3); dcmqi reads the position
    frame by frame.
    """
    orientation, position = Attributes(), Attributes()
    orientation.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    position.ImagePositionPatient = [0.0, 0.0, 0.0]
    for groups in segmentation.SharedFunctionalGroupsSequence:
        groups.PlaneOrientationSequence = [orientation]
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        groups.PlanePositionSequence = [position]


def _same_pixels(source: SourceFrame) -> Dataset:
    """The source frame, with each pixel in its own place (Spatial Locations Preserved)."""
    item = image_reference(source)
    item.SpatialLocationsPreserved = "YES"
    return item


def _frame_groups(number: int, source: SourceFrame) -> Dataset:
    """One segment, derived from the one source frame (C.7.6.16.2.6), pixel upon pixel.

    The derivation is the same for all; readers look for it frame by frame.
    """
    content = Attributes()
    content.DimensionIndexValues = number
    segment = Attributes()
    segment.ReferencedSegmentNumber = number
    derivation = Attributes()
    derivation.DerivationCodeSequence = [code_item(SEGMENTATION_DERIVATION)]
    derivation.SourceImageSequence = [_same_pixels(source)]
    groups = Attributes()
    groups.DerivationImageSequence = [derivation]
    groups.FrameContentSequence = [content]
    groups.SegmentIdentificationSequence = [segment]
    return groups
