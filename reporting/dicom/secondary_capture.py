"""Builds annotated fields and galleries as Secondary Capture Image objects (PS3.3 A.8.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from config.codes import MODALITY_OTHER, Concept
from config.dicom_codes import LOSSY_COMPRESSION, SEGMENTATION_DERIVATION, SPATIAL_RESAMPLING
from pipeline.domain import RESEARCH_USE_ONLY, RGB
from pipeline.errors import Defect
from reporting.dicom.attributes import Attributes
from reporting.dicom.common_modules import (
    Authorship,
    InstanceReference,
    common_instance_references,
    common_modules,
)
from reporting.dicom.source_attributes import (
    SourceFrame,
    code_item,
    color_profile,
    image_reference,
    laterality,
    specimen,
)
from reporting.results import ObjectReference

JPEG_QUALITY = 92
"""Outlines and small text stay clean; 95 adds a third to the size and nothing to be seen."""
LOSSY_SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.203",
    }
)
"""Transfer syntaxes that may lose something: once lost, always said (PS3.3 C.7.6.1.1.5)."""


def build_secondary_capture(
    picture: RGB,
    *,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
    derivation: str,
    is_resampled: bool,
) -> Dataset:
    """One picture as a Secondary Capture; `transfer_syntax_of` says how its pixels are coded."""
    dataset = common_modules(reference, author, modality=MODALITY_OTHER.code)
    dataset.update(specimen(author.header))
    dataset.update(laterality(author.header))
    dataset.update(_capture(derivation))
    dataset.update(_derivation(sources, is_resampled, author.context.compress_images))
    dataset.update(
        common_instance_references(
            reference.study_instance_uid,
            [InstanceReference.of_source(source.header) for source in sources],
        )
    )
    headers = [source.header for source in sources]
    dataset.update(_color_profile(headers))
    dataset.update(_pixels(picture, headers, author.context.compress_images))
    return dataset


def transfer_syntax_of(dataset: Dataset) -> str:
    """How an object of ours is coded: baseline JPEG for compressed pictures, else plain."""
    is_jpeg = dataset.get("PhotometricInterpretation") == "YBR_FULL_422"
    return JPEGBaseline8Bit if is_jpeg else ExplicitVRLittleEndian


def _capture(derivation: str) -> Dataset:
    """General Image and SC Equipment (C.7.6.1, C.8.6.1)."""
    capture = Attributes()
    capture.PatientOrientation = None
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.ConversionType = "WSD"
    capture.BurnedInAnnotation = "YES"
    capture.RecognizableVisualFeatures = "NO"
    capture.ImageComments = RESEARCH_USE_ONLY
    capture.DerivationDescription = f"{RESEARCH_USE_ONLY}. {derivation}"
    return capture


def _derivation(sources: Sequence[SourceFrame], is_resampled: bool, is_lossy: bool) -> Dataset:
    derived = Attributes()
    derived.DerivationCodeSequence = [
        code_item(concept) for concept in _derivation_codes(is_resampled, is_lossy)
    ]
    derived.SourceImageSequence = [image_reference(source) for source in sources]
    return derived


def _derivation_codes(is_resampled: bool, is_lossy: bool) -> Iterator[Concept]:
    yield SEGMENTATION_DERIVATION
    if is_resampled:
        yield SPATIAL_RESAMPLING
    if is_lossy:
        yield LOSSY_COMPRESSION


def _pixels(picture: RGB, sources: Iterable[Dataset], compress: bool) -> Dataset:
    """Image Pixel Module (C.7.6.3): plain RGB, or baseline JPEG with chroma halved sideways."""
    image = Attributes()
    image.SamplesPerPixel = 3
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = picture.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    if compress:
        jpeg = _jpeg(picture)
        image.PhotometricInterpretation = "YBR_FULL_422"
        image.PixelData = encapsulate([jpeg])
        image["PixelData"].VR = "OB"
        image.update(lossy_history(sources, picture.nbytes / len(jpeg)))
    else:
        image.PhotometricInterpretation = "RGB"
        raw = picture.tobytes()
        image.PixelData = raw + b"\x00" * (len(raw) % 2)
        image["PixelData"].VR = "OB"
        image.update(lossy_history(sources, None))
    return image


def _color_profile(sources: Sequence[Dataset]) -> Dataset:
    """ICC Profile (C.11.15) of the pixels that the picture was drawn on.

    Sources whose profiles differ leave it out: one picture cannot have several.
    """
    profiles = {color_profile(source) for source in sources}
    profile = Attributes()
    if len(profiles) == 1 and (shared := profiles.pop()):
        profile.ICCProfile = shared
    return profile


def _jpeg(picture: RGB) -> bytes:
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    ]
    is_coded, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not is_coded:
        raise Defect("A picture could not be coded as JPEG.", code="jpeg_encoding")
    return jpeg.tobytes()


def lossy_history(sources: Iterable[Dataset], own_ratio: float | None) -> Dataset:
    """Lossy compression of the sources, then our own (C.7.6.1.1.5); ratios where all are known."""
    headers = list(sources)
    ratios, methods = _source_losses(headers) if len(headers) == 1 else ([], [])
    is_lossy = own_ratio is not None or any(is_source_lossy(header) for header in headers)
    history = Attributes()
    history.LossyImageCompression = "01" if is_lossy else "00"
    if own_ratio is not None:
        ratios, methods = [*ratios, f"{own_ratio:.2f}"], [*methods, "ISO_10918_1"]
    if ratios and len(ratios) == len(methods):
        history.LossyImageCompressionRatio = ratios
        history.LossyImageCompressionMethod = methods
    return history


def is_source_lossy(header: Dataset) -> bool:
    """Whether the source ever was compressed with loss, by its own word or by its coding."""
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    return header.get("LossyImageCompression") == "01" or syntax in LOSSY_SYNTAXES


def _source_losses(headers: Sequence[Dataset]) -> tuple[list[str], list[str]]:
    [header] = headers
    ratios = [str(ratio) for ratio in _values(header, "LossyImageCompressionRatio")]
    methods = [str(method) for method in _values(header, "LossyImageCompressionMethod")]
    return (ratios, methods) if len(ratios) == len(methods) else ([], [])


def _values(header: Dataset, keyword: str) -> list[object]:
    """The values of an attribute as a list, empty when it is absent."""
    if keyword not in header or header[keyword].VM == 0:
        return []
    return list(header[keyword].value) if header[keyword].VM > 1 else [header[keyword].value]
