"""The one table of coded concepts: everything coded that leaves this software is named here.

A concept has a DICOM form (a triplet for a Code Sequence, PS3.3 section 8.8) and a FHIR form
(a Coding). Where no published code fits, there is none: text alone is sent rather than a near
miss. Diseases are absent on purpose; this software finds cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSystem:
    """A code system by its FHIR address and, where DICOM knows it, its designator (PS3.16 .8)."""

    url: str
    designator: str | None = None


@dataclass(frozen=True, slots=True)
class Concept:
    """One coded concept."""

    system: CodeSystem
    code: str
    display: str

    @property
    def dicom(self) -> tuple[str, str, str]:
        """Code value, coding scheme designator, code meaning."""
        if self.system.designator is None:
            raise ValueError(f"{self.system.url} has no DICOM coding scheme designator")
        return self.code, self.system.designator, self.display

    @property
    def fhir(self) -> dict[str, str]:
        """A FHIR Coding."""
        return {"system": self.system.url, "code": self.code, "display": self.display}


LOINC = CodeSystem(url="http://loinc.org", designator="LN")
SNOMED_CT = CodeSystem(url="http://snomed.info/sct", designator="SCT")
DCM = CodeSystem(url="http://dicom.nema.org/resources/ontology/DCM", designator="DCM")
RFC_3881 = CodeSystem(url="urn:ietf:rfc:3881", designator="RFC-3881")
UCUM = CodeSystem(url="http://unitsofmeasure.org", designator="UCUM")

NCI_THESAURUS = CodeSystem(
    url="http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl", designator="NCIt"
)

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
V2_0074 = CodeSystem(url=_TERMINOLOGY + "v2-0074")
V2_0203 = CodeSystem(url=_TERMINOLOGY + "v2-0203")
V3_OBSERVATION_VALUE = CodeSystem(url=_TERMINOLOGY + "v3-ObservationValue")
V3_ACT_REASON = CodeSystem(url=_TERMINOLOGY + "v3-ActReason")
V3_DATA_OPERATION = CodeSystem(url=_TERMINOLOGY + "v3-DataOperation")
OBSERVATION_CATEGORY = CodeSystem(url=_TERMINOLOGY + "observation-category")
DATA_ABSENT_REASON = CodeSystem(url=_TERMINOLOGY + "data-absent-reason")
MEDIA_TYPE = CodeSystem(url=_TERMINOLOGY + "media-type")
PROVENANCE_PARTICIPANT = CodeSystem(url=_TERMINOLOGY + "provenance-participant-type")
AUDIT_EVENT_TYPE = CodeSystem(url=_TERMINOLOGY + "audit-event-type")
AUDIT_ENTITY_TYPE = CodeSystem(url=_TERMINOLOGY + "audit-entity-type")
AUDIT_SOURCE_TYPE = CodeSystem(url=_TERMINOLOGY + "security-source-type")
OBJECT_ROLE = CodeSystem(url=_TERMINOLOGY + "object-role")
AI_TRANSPARENCY = "http://hl7.org/fhir/uv/aitransparency"
"""Base of the HL7 guide AI Transparency on FHIR."""
AI_DEVICE_TYPE = CodeSystem(url=f"{AI_TRANSPARENCY}/CodeSystem/AIdeviceTypeCS")
AI_INPUTS = CodeSystem(url=f"{AI_TRANSPARENCY}/CodeSystem/AIinputsCS")
RESTFUL_INTERACTION = CodeSystem(url="http://hl7.org/fhir/restful-interaction")

# --- Figures: LOINC -------------------------------------------------------------------------

DIFFERENTIAL_PANEL = Concept(LOINC, "69738-3", "Differential panel, method unspecified - Blood")
BLASTS_PER_LEUKOCYTES = Concept(LOINC, "26446-5", "Blasts/Leukocytes in Blood")
"""A share in %; 708-8 would be a count in a volume, and 709-6 a count by hand."""
SMEAR_FINDING = Concept(
    LOINC, "5909-7", "Blood smear finding [Identifier] in Blood by Light microscopy"
)
LABORATORY_REPORT = Concept(LOINC, "11502-2", "Laboratory report")

CELL_TYPE_SHARE: Mapping[str, Concept] = MappingProxyType(
    {
        "basophil": Concept(LOINC, "30180-4", "Basophils/Leukocytes in Blood"),
        "eosinophil": Concept(LOINC, "26450-7", "Eosinophils/Leukocytes in Blood"),
        "lymphocyte": Concept(LOINC, "26478-8", "Lymphocytes/Leukocytes in Blood"),
        "monocyte": Concept(LOINC, "26485-3", "Monocytes/Leukocytes in Blood"),
        "neutrophil": Concept(LOINC, "26511-6", "Neutrophils/Leukocytes in Blood"),
        "smudge_cell": Concept(LOINC, "34992-8", "Smudge cells/Leukocytes in Blood"),
    }
)
"""By cell type as reports name it; other types have no code. Lymphoblasts (34922-5) and myeloblasts
(30445-1) are absent on purpose: the network cannot tell the lineage, and reports say blasts."""

# --- Cells and specimens: SNOMED CT ---------------------------------------------------------

LEUKOCYTE = Concept(SNOMED_CT, "52501007", "Leukocyte")
BLAST = Concept(SNOMED_CT, "312256009", "Blast cell")
SMUDGE_CELL = Concept(SNOMED_CT, "34717007", "Smudge cell")
CELL = Concept(SNOMED_CT, "4421005", "Cell")
NUCLEUS = Concept(SNOMED_CT, "84640000", "Nucleus")
BLOOD = Concept(SNOMED_CT, "119297000", "Blood specimen")
BLOOD_SMEAR = Concept(SNOMED_CT, "303248007", "Blood film specimen")
MICROSCOPE_SLIDE = Concept(SNOMED_CT, "433466003", "Microscope slide")

CELL_TYPE: Mapping[str, Concept] = MappingProxyType(
    {
        "basophil": Concept(SNOMED_CT, "30061004", "Basophil"),
        "eosinophil": Concept(SNOMED_CT, "14793004", "Eosinophil"),
        "erythroblast": CELL,
        "immature_granulocyte": LEUKOCYTE,
        "lymphocyte": Concept(SNOMED_CT, "56972008", "Lymphocyte"),
        "monocyte": Concept(SNOMED_CT, "55918008", "Monocyte"),
        "neutrophil": Concept(NCI_THESAURUS, "C12533", "Neutrophil"),
        "platelet": Concept(SNOMED_CT, "16378004", "Platelet"),
        "lymphoblast": BLAST,
        "myeloblast": BLAST,
        "blast": BLAST,
        "promyelocyte": Concept(SNOMED_CT, "43446009", "Promyelocyte"),
        "reactive_lymphocyte": LEUKOCYTE,
        "plasma_cell": Concept(SNOMED_CT, "113335003", "Plasma cell"),
        "smudge_cell": SMUDGE_CELL,
        "undetermined": CELL,
    }
)
"""By cell type as the network names it. It tells neither the lineage of blasts, nor band from
segmented neutrophils (SNOMED CT has a checked code for these alone, so the NCI Thesaurus names the
neutrophil), nor the stages of immature granulocytes; erythroblasts and reactive lymphocytes have no
checked code and take a wider one."""

PERSON_LINEAGE: Mapping[str, Concept] = MappingProxyType(
    {
        "lymphoblast": Concept(SNOMED_CT, "15433008", "Lymphoblast"),
        "myeloblast": Concept(SNOMED_CT, "15622002", "Myeloblast"),
    }
)
"""Lineages of blasts: said only where a person decided."""

# --- Images and algorithms: DICOM -----------------------------------------------------------

IMAGING_MEASUREMENT_REPORT = Concept(DCM, "126000", "Imaging Measurement Report")
MEASUREMENT_GROUP = Concept(DCM, "125007", "Measurement Group")
IMAGE_REGION = Concept(DCM, "111030", "Image Region")
TRACKING_IDENTIFIER = Concept(DCM, "112039", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER = Concept(DCM, "112040", "Tracking Unique Identifier")
ALGORITHM_FAMILY = Concept(DCM, "111000", "Algorithm Family")
ALGORITHM_NAME = Concept(DCM, "111001", "Algorithm Name")
ALGORITHM_PARAMETERS = Concept(DCM, "111002", "Algorithm Parameters")
ALGORITHM_VERSION = Concept(DCM, "111003", "Algorithm Version")
ARTIFICIAL_INTELLIGENCE = Concept(DCM, "123110", "Artificial Intelligence")
SOURCE_IMAGE = Concept(DCM, "121322", "Source image for image processing operation")
PROCESSING_EQUIPMENT = Concept(DCM, "109102", "Processing Equipment")
FOR_RESEARCH = Concept(DCM, "113009", "For Research")
UNUSABLE_IMAGE = Concept(DCM, "111235", "Unusable - Quality renders image unusable")

# --- De-identification: DICOM CID 7050 -------------------------------------------------------

BASIC_PROFILE = Concept(DCM, "113100", "Basic Application Confidentiality Profile")
MODIFIED_DATES_OPTION = Concept(
    DCM, "113107", "Retain Longitudinal Temporal Information Modified Dates Option"
)
PATIENT_CHARACTERISTICS_OPTION = Concept(DCM, "113108", "Retain Patient Characteristics Option")
DEVICE_IDENTITY_OPTION = Concept(DCM, "113109", "Retain Device Identity Option")
INSTITUTION_IDENTITY_OPTION = Concept(DCM, "113112", "Retain Institution Identity Option")

# --- Modalities: DICOM ----------------------------------------------------------------------

MODALITY_GENERAL_MICROSCOPY = Concept(DCM, "GM", "General Microscopy")
MODALITY_SLIDE_MICROSCOPY = Concept(DCM, "SM", "Slide Microscopy")
MODALITY_PHOTOGRAPHY = Concept(DCM, "XC", "External-camera Photography")
MODALITY_OTHER = Concept(DCM, "OT", "Other Modality")
MODALITY_STRUCTURED_REPORT = Concept(DCM, "SR", "Structured Report Document")
MODALITY_PRESENTATION_STATE = Concept(DCM, "PR", "Presentation State")
MODALITY_ANNOTATION = Concept(DCM, "ANN", "Annotation")
MODALITY_SEGMENTATION = Concept(DCM, "SEG", "Segmentation")
MODALITY_KEY_OBJECTS = Concept(DCM, "KO", "Key Object Selection")

MODALITY: Mapping[str, Concept] = MappingProxyType(
    {
        concept.code: concept
        for concept in (
            MODALITY_GENERAL_MICROSCOPY,
            MODALITY_SLIDE_MICROSCOPY,
            MODALITY_PHOTOGRAPHY,
            MODALITY_OTHER,
            MODALITY_STRUCTURED_REPORT,
            MODALITY_PRESENTATION_STATE,
            MODALITY_ANNOTATION,
            MODALITY_SEGMENTATION,
            MODALITY_KEY_OBJECTS,
        )
    }
)
"""By Modality (0008,0060) of what we take and of what we make."""

# --- Units: UCUM ----------------------------------------------------------------------------

PERCENT = Concept(UCUM, "%", "%")
CELLS_UNIT = Concept(UCUM, "{cells}", "cells")
FIELDS_UNIT = Concept(UCUM, "{fields}", "fields")

# --- Exchange: HL7 --------------------------------------------------------------------------

AI_ASSERTED = Concept(V3_OBSERVATION_VALUE, "AIAST", "Artificial Intelligence asserted")
AI_ROLE = Concept(AI_DEVICE_TYPE, "Artificial-Intelligence", "All kinds of Artificial Intelligence")
MODEL_CARD = Concept(AI_INPUTS, "AIModelCard", "AI Model-Card")
MODEL_CARD_MARKDOWN = Concept(AI_INPUTS, "AIModelCardMarkdownFormat", "Markdown Format")
HEALTHCARE_RESEARCH = Concept(V3_ACT_REASON, "HRESCH", "healthcare research")
"""Purpose of use, in the security labels of every resource; see ADR 0006."""
PSEUDONYMISED = Concept(V3_OBSERVATION_VALUE, "PSEUDED", "pseudonymized")
LABORATORY = Concept(OBSERVATION_CATEGORY, "laboratory", "Laboratory")
LABORATORY_SECTION = Concept(V2_0074, "LAB", "Laboratory")
HEMATOLOGY_SECTION = Concept(V2_0074, "HM", "Hematology")
ACCESSION = Concept(V2_0203, "ACSN", "Accession ID")
IMAGE = Concept(MEDIA_TYPE, "image", "Image")
NOT_PERFORMED = Concept(DATA_ABSENT_REASON, "not-performed", "Not Performed")
CREATED = Concept(V3_DATA_OPERATION, "CREATE", "create")
UPDATED = Concept(V3_DATA_OPERATION, "UPDATE", "revise")
ASSEMBLER = Concept(PROVENANCE_PARTICIPANT, "assembler", "Assembler")
REVIEWER = Concept(PROVENANCE_PARTICIPANT, "performer", "Performer")
VERIFIER = Concept(PROVENANCE_PARTICIPANT, "verifier", "Verifier")
RESTFUL_OPERATION = Concept(AUDIT_EVENT_TYPE, "rest", "RESTful Operation")
TRANSACTION = Concept(RESTFUL_INTERACTION, "transaction", "transaction")
SYSTEM_OBJECT = Concept(AUDIT_ENTITY_TYPE, "2", "System Object")
REPORT_ROLE = Concept(OBJECT_ROLE, "3", "Report")
SECURITY_RESOURCE_ROLE = Concept(OBJECT_ROLE, "13", "Security Resource")
APPLICATION_SERVER = Concept(AUDIT_SOURCE_TYPE, "4", "Application Server")

# --- Audit messages: PS3.15 A.5 -------------------------------------------------------------

# What happened: CID 400
APPLICATION_ACTIVITY = Concept(DCM, "110100", "Application Activity")
AUDIT_LOG_USED = Concept(DCM, "110101", "Audit Log Used")
INSTANCES_ACCESSED = Concept(DCM, "110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Concept(DCM, "110104", "DICOM Instances Transferred")
EXPORT = Concept(DCM, "110106", "Export")
QUERY = Concept(DCM, "110112", "Query")
SECURITY_ALERT = Concept(DCM, "110113", "Security Alert")
USER_AUTHENTICATION = Concept(DCM, "110114", "User Authentication")
# Of which type: CID 401 and 403
APPLICATION_START = Concept(DCM, "110120", "Application Start")
APPLICATION_STOP = Concept(DCM, "110121", "Application Stop")
LOGIN = Concept(DCM, "110122", "Login")
LOGOUT = Concept(DCM, "110123", "Logout")
NODE_AUTHENTICATION = Concept(DCM, "110126", "Node Authentication")
SOFTWARE_CONFIGURATION = Concept(DCM, "110131", "Software Configuration")
RESTRICTED_FUNCTION = Concept(DCM, "110132", "Use of Restricted Function")
AUDIT_RECORDING_STARTED = Concept(DCM, "110134", "Audit Recording Started")
USER_SECURITY_CHANGED = Concept(DCM, "110137", "User Security Attributes Changed")
# Who took part: CID 402
APPLICATION_ROLE = Concept(DCM, "110150", "Application")
DESTINATION_ROLE = Concept(DCM, "110152", "Destination Role ID")
SOURCE_ROLE = Concept(DCM, "110153", "Source Role ID")
# What it was about: CID 404
URI_ID = Concept(RFC_3881, "12", "URI")
"""ParticipantObjectIDTypeCode of the audit log (PS3.15 A.5.3.2)."""
STUDY_INSTANCE_UID = Concept(DCM, "110180", "Study Instance UID")


def _every_concept() -> Mapping[tuple[str, str], Concept]:
    tables = [CELL_TYPE_SHARE, CELL_TYPE, PERSON_LINEAGE, MODALITY]
    named = [value for value in globals().values() if isinstance(value, Concept)]
    listed = [concept for table in tables for concept in table.values()]
    return MappingProxyType({(c.system.url, c.code): c for c in named + listed})


CONCEPTS: Mapping[tuple[str, str], Concept] = _every_concept()
"""Every concept above by system address and code: a code that is not here was never meant."""
