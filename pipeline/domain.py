"""The words of the house: what an image is, what was found in it, and how sure we are.

Every value is frozen; change one with `dataclasses.replace`.
Pixel arrays are RGB, uint8, height × width × 3. Contours are int32, N × 2, columns x then y,
in pixels of the source image. Boxes are pixels of the source image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

import numpy as np
from numpy.typing import NDArray

RESEARCH_USE_ONLY = "RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE"
"""The one label; every derived object, row and event carries it (law 3)."""

StudyUID = NewType("StudyUID", str)
SeriesUID = NewType("SeriesUID", str)
SOPInstanceUID = NewType("SOPInstanceUID", str)
SmearId = NewType("SmearId", str)
"""What one smear is gathered by: a series UID, or a digest of the specimen's identifiers."""

RGB = NDArray[np.uint8]
Contour = NDArray[np.int32]


class CellType(StrEnum):
    """What a white cell, or what is taken for one, may be called."""

    BASOPHIL = "basophil"
    EOSINOPHIL = "eosinophil"
    ERYTHROBLAST = "erythroblast"
    IMMATURE_GRANULOCYTE = "immature_granulocyte"
    LYMPHOCYTE = "lymphocyte"
    MONOCYTE = "monocyte"
    NEUTROPHIL = "neutrophil"
    PLATELET = "platelet"
    LYMPHOBLAST = "lymphoblast"
    MYELOBLAST = "myeloblast"
    """Both are names of packs and of older networks: the present one does not tell lineage."""
    BLAST = "blast"
    """Of either lineage."""
    PROMYELOCYTE = "promyelocyte"
    REACTIVE_LYMPHOCYTE = "reactive_lymphocyte"
    PLASMA_CELL = "plasma_cell"
    SMUDGE_CELL = "smudge_cell"
    """The remains of a burst cell: nothing is judged of it."""
    UNDETERMINED = "undetermined"
    """No type can be told: the network's heads contradict each other, or none is likely enough."""


CELL_TYPES: tuple[CellType, ...] = (
    CellType.BASOPHIL,
    CellType.EOSINOPHIL,
    CellType.ERYTHROBLAST,
    CellType.IMMATURE_GRANULOCYTE,
    CellType.LYMPHOCYTE,
    CellType.MONOCYTE,
    CellType.NEUTROPHIL,
    CellType.PLATELET,
    CellType.BLAST,
    CellType.PROMYELOCYTE,
    CellType.REACTIVE_LYMPHOCYTE,
    CellType.PLASMA_CELL,
    CellType.SMUDGE_CELL,
)
"""The network's classes, in the order of its `cell_type` output."""

LEAST_NUCLEUS_UM2 = 14.0
"""Area of the smallest nucleus of a white cell; below it is a platelet or a stain deposit."""


class Call(StrEnum):
    """What we say about one cell."""

    LEUKEMIC = "leukemic"
    NORMAL = "normal"
    REFERRED = "referred"


class ReferralReason(StrEnum):
    """Why a cell is shown to an expert instead of being called."""

    UNCERTAIN = "uncertain"
    UNLIKE_TRAINING = "unlike_training"
    CUT_BY_EDGE = "cut_by_edge"
    SMUDGE_CELL = "smudge_cell"
    POOR_OUTLINE = "poor_outline"
    FIELD_QUALITY = "field_quality"
    UNIDENTIFIED = "unidentified"
    """A person looked at the cell and could not say what it is."""


class QualityFlag(StrEnum):
    """Why a field cannot be trusted, or not fully."""

    OUT_OF_FOCUS = "out_of_focus"
    UNDEREXPOSED = "underexposed"
    OVEREXPOSED = "overexposed"
    STAIN_OUT_OF_RANGE = "stain_out_of_range"
    TOO_THICK = "too_thick"
    TOO_THIN = "too_thin"
    EMPTY = "empty"
    NOT_A_SMEAR = "not_a_smear"
    GRAYSCALE = "grayscale"
    """The picture has no color, so that no stain can be judged."""
    TRUNCATED = "truncated"
    """The lower part of the picture is missing: one flat band of what a decoder fills in."""
    SCALE_UNKNOWN = "scale_unknown"
    EXCLUDED = "excluded"
    """A person took the field out of the count."""


class ScaleSource(StrEnum):
    """Where the physical scale of a field came from."""

    DATASET = "dataset"
    RED_CELLS = "red_cells"
    ASSUMED = "assumed"


class CellKind(StrEnum):
    """What the segmentation took a region for, before the network sees it."""

    WHITE_CELL = "white_cell"
    SMUDGE_CELL = "smudge_cell"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceImage:
    """One decoded frame that passed every check; it cannot exist in a bad state.

    `spacing_um` is µm a pixel (row direction equals column direction) or None when the
    dataset gives no trustworthy spacing.
    """

    sop_instance_uid: SOPInstanceUID
    frame: int
    """1-based, as in DICOM."""
    pixels: RGB
    spacing_um: float | None

    @property
    def height(self) -> int:
        """Rows of the frame."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of the frame."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Physical scale of a field: µm a pixel, and how we know."""

    um_per_px: float
    source: ScaleSource
    red_cell_diameter_px: float | None = None
    red_cells_measured: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Upright box in source pixels; x, y is the upper left corner, inside the picture."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellShape:
    """Shape figures; lengths in µm when the scale is known from the dataset or red cells."""

    area_um2: float
    nucleus_area_um2: float
    perimeter_um: float
    equivalent_diameter_um: float
    circularity: float
    """4π area / perimeter², 1 for a circle."""
    solidity: float
    """Area over convex-hull area."""
    eccentricity: float
    nucleus_to_cell_ratio: float
    """Nucleus area over whole-cell area, 0 to 1."""
    nucleus_lobes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """One white cell that was found, before the network sees it."""

    index: int
    """1-based within its field, in reading order."""
    kind: CellKind
    box: Box
    contour: Contour
    nucleus_contours: tuple[Contour, ...]
    shape: CellShape
    is_cut_by_edge: bool
    is_touching: bool
    confidence: float
    """Segmentation's own confidence, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldQuality:
    """Coded reasons and the figures behind them; `is_usable` False means refer, do not count."""

    flags: frozenset[QualityFlag]
    is_usable: bool
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldCells:
    """What the segmentation says of one field: scale, quality and cells."""

    scale: Scale
    quality: FieldQuality
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What the network says of one crop."""

    leukemic_probability: float
    """Calibrated, 0 to 1."""
    type_probabilities: tuple[float, ...]
    """In the order of CELL_TYPES; sums to 1."""
    activation_map: NDArray[np.float32]
    """7 × 7, non-negative, class activation for leukemic; row 0 is the top of the crop."""
    novelty: float
    """Distance to the training data; above the model's limit means unlike it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPolicy:
    """How probabilities become calls: chosen on validation patients, kept in the manifest."""

    refer_above: float
    """A probability in [refer_above, leukemic_from) is referred as uncertain."""
    leukemic_from: float
    novelty_limit: float
    type_from: float = 0.5
    """A type with a lower probability is not told; at one half it is likelier than all others
    together."""


CALIBRATION_DIGITS = 12
"""Of a calibration's hash, where it is shown to people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationIdentity:
    """The calibration of a laboratory with which a network answered."""

    site: str
    """As the laboratory calls itself; empty where results must not name it."""
    made_on: str
    """ISO date."""
    smears: int
    """From which it was made."""
    sha256: str
    """Of its file."""

    @property
    def in_words(self) -> str:
        """For people."""
        smears = f"{self.smears} smear{'' if self.smears == 1 else 's'}"
        whose = f" for {self.site}" if self.site else ""
        return f"calibrated{whose} on {self.made_on} ({smears})"

    @property
    def described(self) -> str:
        """For people and programs: with the beginning of the file's hash."""
        return f"{self.in_words}, sha256 {self.sha256[:CALIBRATION_DIGITS]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which network answered, on what. Part of every result and of every derived UID."""

    name: str
    version: str
    sha256: str
    execution_provider: str
    """What really ran, e.g. CPUExecutionProvider, never what was asked for."""
    finder_sha256: str = ""
    """Of the network that found the cells; empty where density alone did."""
    calibration: CalibrationIdentity | None = None
    """None where the network answers as it was packaged."""

    @property
    def calibration_note(self) -> str:
        """A clause to put after the network's own words; "" without a calibration."""
        return f"; {self.calibration.described}" if self.calibration else ""

    @property
    def key(self) -> str:
        """What decides an answer: the same pixels and the same key give the same findings."""
        calibration = self.calibration.sha256 if self.calibration else ""
        return self.sha256 + self.finder_sha256 + calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewer:
    """A person who looks at cells. The name appears in results, never in logs or paths."""

    account: str
    name: str
    role: str = "reviewer"
    organization: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonDecision:
    """What a person said one cell is, beside what the network said."""

    to: str
    """A cell type, `unidentified` or `not_a_cell` (`pipeline.findings.review.CLASSES`)."""
    reviewer: Reviewer
    at: datetime
    reason: str = ""
    model_type: CellType | None = None
    model_call: Call | None = None
    """What the network said; None until the decision is laid over its finding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellFinding:
    """One cell with what was said about it."""

    cell: Cell
    prediction: Prediction
    cell_type: CellType
    call: Call
    reasons: tuple[ReferralReason, ...]
    """Empty unless the call is REFERRED."""
    decision: PersonDecision | None = None
    """Where a person decided: `cell_type` and `call` are the person's."""

    @property
    def type_probability(self) -> float:
        """The network's probability for `cell_type`; the highest of all where none is told.

        A person may name the lineage of a blast, which the network does not tell: then it is the
        probability of a blast.
        """
        if self.cell_type is CellType.UNDETERMINED:
            return max(self.prediction.type_probabilities)
        is_lineage = self.cell_type in {CellType.LYMPHOBLAST, CellType.MYELOBLAST}
        asked = CellType.BLAST if is_lineage else self.cell_type
        return self.prediction.type_probabilities[CELL_TYPES.index(asked)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldFindings:
    """One analysed field. `cells` is empty when the quality is not usable."""

    study_uid: StudyUID
    series_uid: SeriesUID
    sop_instance_uid: SOPInstanceUID
    frame: int
    width: int
    height: int
    scale: Scale
    quality: FieldQuality
    cells: tuple[CellFinding, ...]
    model: ModelIdentity


class Grade(StrEnum):
    """For people to see at a glance; never a diagnosis. See pipeline/findings/smear_summary.py."""

    NONE_SEEN = "none_seen"
    FEW = "few"
    MANY = "many"
    REFER = "refer"


class CountWarning(StrEnum):
    """How far the number of counted cells carries (CLSI H20-A2 counts 200, many labs 100)."""

    BELOW_100 = "below_100"
    BELOW_200 = "below_200"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A fraction with its 95 % interval, all 0 to 1."""

    value: float
    low: float
    high: float


class SignOff(StrEnum):
    """How far a report is signed, in the terms of FHIR R4 DiagnosticReport.status."""

    UNSIGNED = "unsigned"
    """Nobody has signed any version: preliminary."""
    FINAL = "final"
    CORRECTED = "corrected"
    """Signed once, and what it says was changed since."""
    APPENDED = "appended"
    """Signed once, and something was added since that leaves what it says."""
    AMENDED = "amended"
    """Signed once, and both changed and added to since, or more fields came."""
    WITHDRAWN = "withdrawn"
    """Signed once and taken back: entered in error."""


class SignatureMeaning(StrEnum):
    """What a person stated by signing (after 21 CFR 11.50)."""

    REVIEWED = "sign"
    COUNTERSIGNED = "countersign"
    WITHDRAWN = "withdraw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Who signed, when and with which meaning."""

    reviewer: Reviewer
    at: datetime
    """Aware, UTC."""
    meaning: SignatureMeaning
    revision: int
    """Of the review that was signed."""
    fields: tuple[str, ...] = ()
    """Field keys that the signature covers."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """What the network alone counted, beside the counts of a person."""

    white_cells_counted: int
    leukemic_count: int
    referred_count: int
    differential: Mapping[CellType, int]
    leukemic_fraction: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange:
    """One cell of which a person said something else than the network."""

    cell: str
    """Cell key: `<SOP Instance UID>:<frame>:<index>`."""
    model_type: CellType
    model_call: Call
    to: str
    reviewer: Reviewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A remark of a person, on cells or on the smear."""

    event_id: str
    at: datetime
    reviewer: Reviewer
    cells: tuple[str, ...]
    """Cell keys; none where it is about the smear."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SmearReview:
    """What people did to a smear; its counts are those of the smear that holds it."""

    revision: int
    sign_off: SignOff
    is_current: bool
    """False when something changed after the last signature."""
    signatures: tuple[Signature, ...]
    reviewers: tuple[Reviewer, ...]
    model_counts: ModelCounts
    changes: tuple[CellChange, ...]
    confirmed: int
    """Cells whose class a person confirmed."""
    not_cells: int
    """Objects that a person struck out as no cell."""
    beyond_target: int
    """Cells left out because the target count was reached."""
    target_count: int
    """0 counts every cell."""
    added: int
    """Cells that the finder missed and a person added."""
    excluded_fields: tuple[str, ...]
    starred: tuple[str, ...]
    """Cell keys."""
    comments: tuple[Comment, ...]
    """Oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SmearFindings:
    """Every field of one smear, counted. Independent of the order in which fields came."""

    smear_id: SmearId
    fields: tuple[FieldFindings, ...]
    """Sorted by SOP Instance UID, then frame."""
    white_cells_counted: int
    """Cells called leukemic or normal whose type is that of a leukocyte: the denominator of every
    percentage."""
    leukemic_count: int
    normal_count: int
    """Of the cells counted."""
    differential: Mapping[CellType, int]
    """Every leukocyte type; sums to `white_cells_counted`."""
    undetermined_count: int
    """Cells called normal whose type cannot be told: in no percentage."""
    not_leukocytes: Mapping[CellType, int]
    """Erythroblasts and platelets called normal, zeros included: in no percentage."""
    leukemic_fraction: Interval | None
    """Wilson interval; None when nothing was counted."""
    referred: Mapping[ReferralReason, int]
    fields_rejected: Mapping[SOPInstanceUID, frozenset[QualityFlag]]
    count_warning: CountWarning | None
    grade: Grade
    grade_reason: str
    model: ModelIdentity
    review: SmearReview | None = None
    """What people did; None where nobody reviewed the smear."""
