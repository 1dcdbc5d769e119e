"""Builds the outlines as a Color Softcopy Presentation State (PS3.3 A.33.2), to be switched off.

One graphic layer a call, one for nuclei, and one for the label of research use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from pydicom import Dataset

from config.codes import MODALITY_PRESENTATION_STATE
from pipeline.domain import RESEARCH_USE_ONLY, Call, CellFinding, Contour, FieldFindings
from pipeline.rendering.pen import AMBER, CALL_COLOURS, CALL_STYLES, GRAY, INK, Color
from reporting.dicom.attributes import Attributes
from reporting.dicom.color import cielab, srgb_profile
from reporting.dicom.common_modules import (
    Authorship,
    InstanceReference,
    common_modules,
    date_and_time,
    series_items,
)
from reporting.dicom.graphic_coordinates import closed, outline_points
from reporting.dicom.source_attributes import SourceFrame, color_profile, image_reference
from reporting.results import ObjectReference

LAYER_BY_CALL = {
    Call.LEUKEMIC: "LEUKEMIC",
    Call.NORMAL: "NORMAL",
    Call.REFERRED: "REFERRED",
}
NUCLEI_LAYER = "NUCLEI"
RESEARCH_LAYER = "RESEARCH"
LAYERS: tuple[tuple[str, Color, str], ...] = (
    ("LEUKEMIC", CALL_COLOURS[Call.LEUKEMIC], "Cells called leukemic, for research"),
    ("NORMAL", CALL_COLOURS[Call.NORMAL], "Cells called normal, for research"),
    ("REFERRED", CALL_COLOURS[Call.REFERRED], "Cells referred to an expert"),
    (NUCLEI_LAYER, GRAY, "Nuclei of the outlined cells"),
    (RESEARCH_LAYER, AMBER, RESEARCH_USE_ONLY),
)
LABEL_HEIGHT_SHARE = 0.025
"""Height of a label's box as a share of the image's height."""


def build_presentation_state(
    findings: FieldFindings, *, reference: ObjectReference, author: Authorship, source: SourceFrame
) -> Dataset:
    """Outlines and labels of one field as graphic layers over the source."""
    dataset = common_modules(reference, author, modality=MODALITY_PRESENTATION_STATE.code)
    dataset.Laterality = None
    dataset.update(_identification(author))
    dataset.update(_relationship(source))
    dataset.update(_display(findings, source))
    dataset.GraphicAnnotationSequence = list(_annotations(findings, source))
    dataset.GraphicLayerSequence = [
        _layer(order, name, color, words)
        for order, (name, color, words) in enumerate(LAYERS, start=1)
    ]
    dataset.ICCProfile = _profile(source.header)
    return dataset


def _identification(author: Authorship) -> Dataset:
    """C.11.10: a label to be chosen by, and when it was made."""
    identification = Attributes()
    identification.ContentLabel = "RESEARCH_USE"
    identification.ContentDescription = RESEARCH_USE_ONLY
    identification.ContentCreatorName = None
    creation = date_and_time(author)
    identification.PresentationCreationDate, identification.PresentationCreationTime = creation
    return identification


def _relationship(source: SourceFrame) -> Dataset:
    """C.11.11: the one image, and where it is many frames, the one frame."""
    relationship = Attributes()
    relationship.ReferencedSeriesSequence = series_items(
        [InstanceReference.of_source(source.header)], "ReferencedImageSequence"
    )
    relationship.ReferencedSeriesSequence[0].ReferencedImageSequence = [_image(source)]
    return relationship


def _image(source: SourceFrame) -> Dataset:
    return image_reference(source, purpose=None)


def _display(findings: FieldFindings, source: SourceFrame) -> Dataset:
    """C.10.4: the whole picture, fitted to the window."""
    area = Attributes()
    area.ReferencedImageSequence = [_image(source)]
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [findings.width, findings.height]
    area.PresentationSizeMode = "SCALE TO FIT"
    area.PresentationPixelAspectRatio = [1, 1]
    display = Attributes()
    display.DisplayedAreaSelectionSequence = [area]
    return display


def _layer(order: int, name: str, color: Color, words: str) -> Dataset:
    """C.10.7."""
    layer = Attributes()
    layer.GraphicLayer = name
    layer.GraphicLayerOrder = order
    layer.GraphicLayerRecommendedDisplayCIELabValue = cielab(color)
    layer.GraphicLayerDescription = words
    return layer


def _profile(header: Dataset) -> bytes:
    """The source's own color profile, or sRGB where it has none."""
    return color_profile(header) or srgb_profile()


# --- annotations, one a layer (C.10.5)


def _annotations(findings: FieldFindings, source: SourceFrame) -> Iterator[Dataset]:
    yield _annotation(RESEARCH_LAYER, source, texts=[_banner()])
    for call, layer in LAYER_BY_CALL.items():
        cells = [finding for finding in findings.cells if finding.call is call]
        if cells:
            yield _annotation(
                layer,
                source,
                texts=[_label(finding, findings) for finding in cells],
                graphics=[_outline(finding) for finding in cells],
            )
    nuclei = [_polyline(nucleus) for nucleus in _nuclei(findings)]
    if nuclei:
        yield _annotation(NUCLEI_LAYER, source, graphics=nuclei)


def _annotation(
    layer: str,
    source: SourceFrame,
    *,
    texts: Sequence[Dataset] = (),
    graphics: Sequence[Dataset] = (),
) -> Dataset:
    annotation = Attributes()
    annotation.ReferencedImageSequence = [_image(source)]
    annotation.GraphicLayer = layer
    if texts:
        annotation.TextObjectSequence = list(texts)
    if graphics:
        annotation.GraphicObjectSequence = list(graphics)
    return annotation


def _banner() -> Dataset:
    """Across the top of the displayed area, whatever is zoomed."""
    text = Attributes()
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.UnformattedTextValue = RESEARCH_USE_ONLY
    text.BoundingBoxTopLeftHandCorner = [0.0, 0.0]
    text.BoundingBoxBottomRightHandCorner = [1.0, 0.04]
    text.BoundingBoxTextHorizontalJustification = "CENTER"
    return text


def _label(finding: CellFinding, findings: FieldFindings) -> Dataset:
    """Above the cell, or below it at the upper edge; the call stands in words beside its color."""
    box = finding.cell.box
    height = max(1.0, findings.height * LABEL_HEIGHT_SHARE)
    top = box.y - height if box.y >= height else float(box.y + box.height)
    width = height * 12
    left = max(0.0, min(box.x + box.width / 2 - width / 2, findings.width - width))
    text = Attributes()
    text.BoundingBoxAnnotationUnits = "PIXEL"
    text.UnformattedTextValue = (
        f"#{finding.cell.index} {finding.prediction.leukemic_probability:.2f} {finding.call}"
    )
    text.BoundingBoxTopLeftHandCorner = [left, top]
    text.BoundingBoxBottomRightHandCorner = [
        min(left + width, findings.width),
        min(top + height, findings.height),
    ]
    text.BoundingBoxTextHorizontalJustification = "CENTER"
    return text


def _outline(finding: CellFinding) -> Dataset:
    graphic = _polyline(finding.cell.contour)
    graphic.LineStyleSequence = [_line_style(finding.call)]
    return graphic


@cache
def _line_style(call: Call) -> Dataset:
    """Full or dashed as in the annotated picture (C.10.5.1.2.1), shared by all: never change it."""
    style = CALL_STYLES[call]
    line = Attributes()
    line.PatternOnColorCIELabValue = cielab(style.color)
    line.PatternOnOpacity = 1.0
    line.LineThickness = style.width
    line.LineDashingStyle = "SOLID"
    line.ShadowStyle = "OFF"
    line.ShadowOffsetX = line.ShadowOffsetY = line.ShadowOpacity = 0.0
    line.ShadowColorCIELabValue = cielab(INK)
    if style.dash:
        line.LineDashingStyle = "DASHED"
        line.LinePattern = 0x0000FFFF
        line.PatternOffOpacity = 0.0
    return line


def _polyline(contour: Contour) -> Dataset:
    points = closed(outline_points(contour))
    graphic = Attributes()
    graphic.GraphicAnnotationUnits = "PIXEL"
    graphic.GraphicDimensions = 2
    graphic.NumberOfGraphicPoints = len(points)
    graphic.GraphicData = [float(value) for value in points.ravel()]
    graphic.GraphicType = "POLYLINE"
    graphic.GraphicFilled = "N"
    return graphic


def _nuclei(findings: FieldFindings) -> Iterator[Contour]:
    return (nucleus for finding in findings.cells for nucleus in finding.cell.nucleus_contours)
