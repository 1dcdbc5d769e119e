"""Coded concepts that only DICOM objects use: the grammar of PS3.16 templates, and our own words.

Beside `config.codes`, which names what is said about cells in DICOM and FHIR alike. What no
published code says stands under the private designator 99SMEARLINK (PS3.3 section 8.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from config.codes import DCM, SNOMED_CT, UCUM, CodeSystem, Concept

SMEARLINK = CodeSystem(url="urn:smearlink:concepts", designator="99SMEARLINK")
RFC5646 = CodeSystem(url="urn:ietf:bcp:47", designator="RFC5646")

# --- Grammar of TID 1500 and the templates that it includes (PS3.16) -------------------------

LANGUAGE = Concept(DCM, "121049", "Language of Content Item and Descendants")
ENGLISH = Concept(RFC5646, "en", "English")
OBSERVER_TYPE = Concept(DCM, "121005", "Observer Type")
DEVICE = Concept(DCM, "121007", "Device")
PERSON = Concept(DCM, "121006", "Person")
PERSON_OBSERVER_NAME = Concept(DCM, "121008", "Person Observer Name")
PERSON_OBSERVER_ORGANIZATION = Concept(DCM, "121009", "Person Observer's Organization Name")
PERSON_OBSERVER_ROLE = Concept(DCM, "121010", "Person Observer's Role in the Organization")
DEVICE_OBSERVER_UID = Concept(DCM, "121012", "Device Observer UID")
DEVICE_OBSERVER_NAME = Concept(DCM, "121013", "Device Observer Name")
DEVICE_OBSERVER_MANUFACTURER = Concept(DCM, "121014", "Device Observer Manufacturer")
DEVICE_OBSERVER_MODEL = Concept(DCM, "121015", "Device Observer Model Name")
DEVICE_OBSERVER_SERIAL = Concept(DCM, "121016", "Device Observer Serial Number")
SUBJECT_CLASS = Concept(DCM, "121024", "Subject Class")
SPECIMEN = Concept(DCM, "121027", "Specimen")
SPECIMEN_UID = Concept(DCM, "121039", "Specimen UID")
SPECIMEN_IDENTIFIER = Concept(DCM, "121041", "Specimen Identifier")
SPECIMEN_CONTAINER = Concept(DCM, "111700", "Specimen Container Identifier")
PROCEDURE_REPORTED = Concept(DCM, "121058", "Procedure reported")
MICROSCOPY = Concept(SNOMED_CT, "117259009", "Microscopy")
IMAGE_LIBRARY = Concept(DCM, "111028", "Image Library")
IMAGE_LIBRARY_GROUP = Concept(DCM, "126200", "Image Library Group")
IMAGING_MEASUREMENTS = Concept(DCM, "126010", "Imaging Measurements")
FINDING = Concept(DCM, "121071", "Finding")
SOURCE = Concept(SNOMED_CT, "260753009", "Source")
COMMENT = Concept(DCM, "121106", "Comment")
KEY_OBJECT_DESCRIPTION = Concept(DCM, "113012", "Key Object Description")
DOCUMENT_TITLE_MODIFIER = Concept(DCM, "113011", "Document Title Modifier")
REJECTED_FOR_QUALITY_REASONS = Concept(DCM, "113001", "Rejected for Quality Reasons")
"""The title by which IHE IOCM has an archive hide objects."""
REPLACED = Concept(SMEARLINK, "REPLACED", "Replaced by a newer version of the report")
ALGORITHM_MANUFACTURER = Concept(DCM, "122405", "Algorithm Manufacturer")

# --- What is measured -----------------------------------------------------------------------

LEUKEMIC_PROBABILITY = Concept(SMEARLINK, "LEUKPROB", "Probability of being leukemic")
MOST_SUSPICIOUS_PROBABILITY = Concept(
    SMEARLINK, "LEUKPROBFIRST", "Probability of being leukemic, most suspicious cell"
)
AREA = Concept(SNOMED_CT, "42798000", "Area")
PERIMETER = Concept(SNOMED_CT, "131191004", "Perimeter")
NUCLEUS_TO_CELL_RATIO = Concept(SMEARLINK, "NCRATIO", "Nucleus to cell area ratio")
CELLS_IN_FIELD = Concept(SMEARLINK, "FIELDCELLS", "White cells found in the field")
LEUKOCYTES_COUNTED = Concept(SMEARLINK, "COUNTED", "White cells counted")
LEUKEMIC_COUNT = Concept(SMEARLINK, "LEUKEMICCOUNT", "Cells called leukemic")
NORMAL_COUNT = Concept(SMEARLINK, "NORMALCOUNT", "Cells called normal")
REFERRED_COUNT = Concept(SMEARLINK, "REFERREDCOUNT", "Cells referred to an expert")
UNDETERMINED_COUNT = Concept(SMEARLINK, "UNDETERMINED", "Cells of undetermined type")
FOUND_COUNT = Concept(SMEARLINK, "FOUNDCOUNT", "Cells found")
LEUKEMIC_SHARE_LOW = Concept(
    SMEARLINK, "LEUKSHARELOW", "Lower 95% limit of the share called leukemic"
)
LEUKEMIC_SHARE_HIGH = Concept(
    SMEARLINK, "LEUKSHAREHIGH", "Upper 95% limit of the share called leukemic"
)
BLAST_LIMITS: Mapping[str, Concept] = MappingProxyType(
    {"low": LEUKEMIC_SHARE_LOW, "high": LEUKEMIC_SHARE_HIGH}
)
SMUDGE_COUNT = Concept(SMEARLINK, "SMUDGEREFERRED", "Smudge cells among the cells referred")
GRADE = Concept(SMEARLINK, "GRADE", "Grade of the smear, for reading order only")
GRADE_REASON = Concept(SMEARLINK, "GRADEREASON", "Reason of the grade")
ERYTHROBLAST_SHARE = Concept(SMEARLINK, "ERYTHROSHARE", "Erythroblasts per white cells")
IMMATURE_SHARE = Concept(SMEARLINK, "IMMATURESHARE", "Immature granulocytes per white cells")
PLATELET_SHARE = Concept(SMEARLINK, "PLATELETSHARE", "Platelets per white cells")
BLAST_TYPE_SHARE = Concept(SMEARLINK, "BLASTTYPESHARE", "Cells of the type blast per white cells")
PROMYELOCYTE_SHARE = Concept(SMEARLINK, "PROMYELOSHARE", "Promyelocytes per white cells")
REACTIVE_LYMPHOCYTE_SHARE = Concept(
    SMEARLINK, "REACTLYMPHSHARE", "Reactive lymphocytes per white cells"
)
PLASMA_CELL_SHARE = Concept(SMEARLINK, "PLASMASHARE", "Plasma cells per white cells")

DIFFERENTIAL_SHARE: Mapping[str, Concept] = MappingProxyType(
    {
        "erythroblast": ERYTHROBLAST_SHARE,
        "immature_granulocyte": IMMATURE_SHARE,
        "platelet": PLATELET_SHARE,
        "blast": BLAST_TYPE_SHARE,
        "promyelocyte": PROMYELOCYTE_SHARE,
        "reactive_lymphocyte": REACTIVE_LYMPHOCYTE_SHARE,
        "plasma_cell": PLASMA_CELL_SHARE,
    }
)
"""By cell type, where `codes.CELL_TYPE_SHARE` has no LOINC code."""

NOT_LEUKOCYTE_COUNT: Mapping[str, Concept] = MappingProxyType(
    {
        "erythroblast": Concept(SMEARLINK, "ERYTHROCOUNT", "Erythroblasts"),
        "platelet": Concept(SMEARLINK, "PLATELETCOUNT", "Platelets taken for cells"),
        "smudge_cell": Concept(SMEARLINK, "SMUDGECOUNT", "Smudge cells"),
    }
)
"""By cell type: what is counted apart from the leukocytes."""

ONE = Concept(UCUM, "1", "no units")
SQUARE_MICROMETER = Concept(UCUM, "um2", "square micrometer")
MICROMETER = Concept(UCUM, "um", "micrometer")
CELLS = Concept(UCUM, "{cells}", "cells")

# --- What is said of a cell -----------------------------------------------------------------

CALL = Concept(SMEARLINK, "CALL", "Call of the network")
REASON = Concept(SMEARLINK, "REASON", "Reason for referral")
DECIDED_BY = Concept(SMEARLINK, "DECIDEDBY", "Decided by")
DECISION_REASON = Concept(SMEARLINK, "DECISIONREASON", "Reason of the person")
MODEL_COUNT = Concept(SMEARLINK, "MODELCOUNTED", "White cells that the network alone counted")
MODEL_LEUKEMIC = Concept(SMEARLINK, "MODELLEUKEMIC", "Cells that the network alone called leukemic")
MODEL_REFERRED = Concept(SMEARLINK, "MODELREFERRED", "Cells that the network alone referred")
CHANGED_COUNT = Concept(SMEARLINK, "CHANGED", "Cells changed by a person")
CONFIRMED_COUNT = Concept(SMEARLINK, "CONFIRMED", "Cells confirmed by a person")
SUGGESTED_TYPE = Concept(SMEARLINK, "SUGGESTEDTYPE", "Type suggested by the network")
FIELD_QUALITY = Concept(SMEARLINK, "QUALITY", "Field quality flag")

CALLS: Mapping[str, Concept] = MappingProxyType(
    {
        "leukemic": Concept(SMEARLINK, "LEUKEMIC", "Called leukemic, for research"),
        "normal": Concept(SMEARLINK, "NORMAL", "Called normal, for research"),
        "referred": Concept(SMEARLINK, "REFERRED", "Referred to an expert"),
    }
)


def local(word: str) -> Concept:
    """The private concept of an enumeration's value, such as a referral reason."""
    name = word.replace("_", " ")
    return Concept(SMEARLINK, name.replace(" ", "").upper()[:16], name.capitalize())


_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "basophil": "BASO",
        "eosinophil": "EOS",
        "immature granulocyte": "IG",
        "lymphocyte": "LYMPH",
        "monocyte": "MONO",
        "neutrophil": "NEUT",
        "plasma cell": "PLASMA",
        "promyelocyte": "PROMYELO",
        "reactive lymphocyte": "REACTLY",
    }
)
"""By cell type as reports name it: a Code Value has 16 characters (PS3.5 6.2, SH)."""


def about_type(word: str, what: str) -> Concept:
    """The private concept of a count, share or limit (`what`) of one cell type."""
    short = _SHORT.get(word, word.replace(" ", "").upper()[:8])
    return Concept(
        SMEARLINK, f"{short}{what.replace(' ', '').upper()}"[:16], f"{word}, {what}".capitalize()
    )


# --- How an object was made -----------------------------------------------------------------

ACQUISITION_EQUIPMENT = Concept(DCM, "109101", "Acquisition Equipment")
SEGMENTATION_DERIVATION = Concept(DCM, "113076", "Segmentation")
SPATIAL_RESAMPLING = Concept(DCM, "113085", "Spatial resampling")
LOSSY_COMPRESSION = Concept(DCM, "113040", "Lossy Compression")
ANATOMICAL_STRUCTURE = Concept(SNOMED_CT, "91723000", "Anatomical Structure")
