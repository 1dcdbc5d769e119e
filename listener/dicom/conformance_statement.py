"""Writes the DICOM Conformance Statement (PS3.2 Annex A) from the tables that the code runs on.

`python -m listener.dicom.conformance_statement docs/conformance.md` writes the file; without a
file name it prints it.
Whatever is listed here is read from the code: a table that changed changes the statement, and a
test fails until it is written anew.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from textwrap import dedent

from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

import config.dicom_codes
from config.codes import Concept
from config.sections import DicomSettings
from listener.dicom.ae_title_access import Rejection
from listener.dicom.dimse import Status
from listener.dicom.negotiation import IMAGE_SOP_CLASSES, REFUSED_SOP_CLASSES, TRANSFER_SYNTAXES
from listener.storage.dataset_scan import MAX_BYTES_BESIDE_PIXELS
from listener.storage.part10 import IMPLEMENTATION_VERSION_NAME
from pipeline.decoding.frames import SAMPLES
from pipeline.domain import RESEARCH_USE_ONLY
from reporting.delivery.destinations import transfer_syntax as transcode
from reporting.delivery.destinations.dicom_store import DicomDestination
from reporting.delivery.dimse_status import (
    Verdict,
    classify_status,
    describe_status,
    format_status,
)
from reporting.delivery.transport import association, tls
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID
from reporting.dicom.common_modules import SERIES_NUMBERS, SERIES_WORDS
from reporting.dicom.source_attributes import (
    COPIED_WHEN_PRESENT,
    PATIENT_TYPE_2,
    SPECIMEN_MODULE,
    STUDY_TYPE_2,
)
from reporting.dicom.sr_measurement_groups import MOST_CELLS
from reporting.result_plan import SOP_CLASSES
from reporting.results import ResultKind

COMMAND = "python -m listener.dicom.conformance_statement docs/conformance.md"
DEFAULTS = DicomSettings()
PLAIN = ("Explicit VR Little Endian", "Implicit VR Little Endian")
MODALITIES = {
    ResultKind.ANNOTATED_FIELD: "OT",
    ResultKind.GALLERY: "OT",
    ResultKind.PRESENTATION_STATE: "PR",
    ResultKind.STRUCTURED_REPORT: "SR",
    ResultKind.BULK_ANNOTATIONS: "ANN",
    ResultKind.SEGMENTATION: "SEG",
    ResultKind.KEY_OBJECTS: "KO",
}
"""A test holds these equal to what the objects say."""
TEMPLATES = {
    ResultKind.STRUCTURED_REPORT: "TID 1500, with 1002, 1009, 1410, 1501, 4019",
    ResultKind.KEY_OBJECTS: "TID 2010",
}
ANSWERS = {
    Verdict.ACCEPTED: "delivered",
    Verdict.ACCEPTED_WITH_NOTE: "delivered; the status is noted in the audit trail",
    Verdict.LATER: "sent again after a growing delay; parked for a person after the last try",
    Verdict.REVIEW: "parked for a person, who may send it again",
}
EXAMPLE_STATUSES = (
    0x0000,
    0x0110,
    0x0111,
    0x0112,
    0x0119,
    0x0122,
    0x0124,
    0x0213,
    0xA700,
    0xA900,
    0xB000,
    0xB006,
    0xB007,
    0xC000,
)
"""One of each family that PS3.4 Table B.2-1 and PS3.7 Annex C name."""


def statement() -> str:
    """The whole document as Markdown."""
    parts = (
        _overview(),
        _model(),
        _listener(),
        _sender(),
        _dicomweb(),
        _media(),
        _character_sets(),
        _security(),
        _created_objects(),
        _codes(),
    )
    lines = [line.rstrip() for part in parts for line in part]
    # Pieces bring an empty line at either end: one between two is enough.
    kept = [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]
    return "\n".join(kept).strip() + "\n"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    if arguments:
        Path(arguments[0]).write_text(statement(), encoding="utf-8")
    else:
        sys.stdout.write(statement())
    return 0


# --- 1 to 3


def _overview() -> Iterator[str]:
    yield "# DICOM Conformance Statement of smearlink"
    yield from _text(
        f"""
        <!-- Written by `{COMMAND}`. Do not edit: change the code and run it again. -->

        After PS3.2 Annex A.
        **{RESEARCH_USE_ONLY}.**

        ## 1 Overview

        smearlink receives blood-smear images, finds and classifies their white cells, and sends
        objects back that refer to the images.
        It stores images and results only as long as it works on them; it is no archive.
        """
    )
    yield from _table(
        ("Network service", "As SCU", "As SCP"),
        [
            ("Verification", "yes (`smearlink check`)", "yes"),
            ("Storage of images", "only `smearlink send` and the demonstration", "yes"),
            ("Storage of results", "yes", "no"),
            ("Storage Commitment Push Model", "yes", "no"),
            ("STOW-RS", "yes (results)", "yes (images)"),
            ("Query/Retrieve, Worklist, MPPS", "no", "no"),
        ],
    )


def _model() -> Iterator[str]:
    yield from _text(
        f"""
        ## 2 Implementation

        One application entity, {DEFAULTS.ae_title} unless the site names it otherwise, listens and
        sends.
        """
    )
    yield from _table(
        ("Item", "Value"),
        [
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("Application context", "1.2.840.10008.3.1.1.1"),
            ("Greatest PDU, receiving", f"{DEFAULTS.max_pdu_bytes} bytes (`max_pdu_bytes`)"),
            ("Greatest PDU, sending", f"what the peer takes; own {association.MAX_PDU_BYTES}"),
            ("Asynchronous operations", "not negotiated"),
        ],
    )


# --- 4.1: the listener


def _listener() -> Iterator[str]:
    yield "## 3 Accepting associations"
    yield from _table(
        ("Policy", "Default", "Setting"),
        [
            ("Address", f"{DEFAULTS.host}:{DEFAULTS.port}", "`host`, `port`"),
            ("Associations at once", f"{DEFAULTS.max_associations}", "`max_associations`"),
            ("Calling AE titles", "any", "`allowed_calling_aes`"),
            ("Called AE title must be ours", "yes", "`require_called_ae`, `extra_called_aes`"),
            ("Calling AE tied to address or certificate", "no", "`[[dicom.peer]]`"),
            ("Association request within", f"{DEFAULTS.acse_timeout_s:g} s", "`acse_timeout_s`"),
            ("Silence within a message", f"{DEFAULTS.dimse_timeout_s:g} s", "`dimse_timeout_s`"),
            ("Silence between messages", f"{DEFAULTS.idle_timeout_s:g} s", "`idle_timeout_s`"),
            ("Largest object", f"{DEFAULTS.max_object_mb} MB", "`max_object_mb`"),
            ("Its elements other than pixels", f"{MAX_BYTES_BESIDE_PIXELS // 2**20} MB", ""),
        ],
    )
    yield "### 3.1 Presentation contexts"
    yield from _table(
        ("SOP class", "UID", "Transfer syntaxes", "Role"),
        [
            _context(Verification, "SCP", PLAIN),
            *(_context(one, "SCP", ("all of 3.2",)) for one in IMAGE_SOP_CLASSES),
            *(
                _context(one, "SCP, each object answered 0x0122", ("all of 3.2",))
                for one in REFUSED_SOP_CLASSES
            ),
            _context(StorageCommitmentPushModel, "SCU, by role selection", PLAIN),
        ],
    )
    yield "### 3.2 Transfer syntaxes, in the order in which one is chosen"
    yield from _table(("Name", "UID"), [(one.name, str(one)) for one in TRANSFER_SYNTAXES])
    yield "Photometric interpretations that are read: " + ", ".join(sorted(SAMPLES)) + "."
    yield ""
    yield "### 3.3 Statuses that are answered"
    yield from _text(
        """
        Success is answered when the image is on disk and synchronized, and not before.
        The same image again is success; other content under the same SOP Instance UID is refused.
        """
    )
    yield from _table(("Status", "Meaning"), list(_meanings(Status)))
    yield "### 3.4 Associations that are rejected"
    yield from _table(
        ("Result, source, reason (PS3.8 Table 9-21)", "When"),
        [
            (f"{one.value[0]}, {one.value[1]}, {one.value[2]}", _words(one.name))
            for one in Rejection
        ],
    )


# --- 4.2: the sender


def _sender() -> Iterator[str]:
    fields = DicomDestination.__dataclass_fields__
    yield from _text(
        f"""
        ## 4 Initiating associations

        To each destination of type `dicom`, as soon as a report is ready; all results of a report
        in one association, each presentation context with one transfer syntax.
        Each phase ends after {fields["timeout_s"].default:g} s (`timeout_s`), a message later by
        its size at {association.SLOWEST_BYTES_PER_S // 1000} kB/s.

        ### 4.1 Presentation contexts
        """
    )
    yield from _table(
        ("SOP class", "UID", "Transfer syntaxes", "Role"),
        [
            _context(Verification, "SCU", PLAIN[1:]),
            *(
                _context(uid, "SCU", [one.name for one in _offered(uid)])
                for uid in dict.fromkeys(SOP_CLASSES.values())
            ),
            _context(StorageCommitmentPushModel, "SCU", PLAIN[1:]),
        ],
    )
    others = ", ".join(
        one.name
        for one in transcode.TRANSFER_SYNTAXES.values()
        if one not in transcode.BY_PREFERENCE
    )
    yield from _text(
        f"""
        A site may choose the order, and add {others} (`transfer_syntaxes`).
        Baseline JPEG is offered for pictures that were made in it.

        ### 4.2 Statuses that come back, of C-STORE, STOW-RS and Storage Commitment
        """
    )
    yield from _table(
        ("Status", "Read as", "What happens"),
        [
            (format_status(one), describe_status(one), ANSWERS[classify_status(one)])
            for one in EXAMPLE_STATUSES
        ],
    )
    yield from _text(
        f"""
        Statuses 0xA7xx, 0xA9xx, 0xBxxx and 0xCxxx are read by their family.

        ### 4.3 Storage Commitment (`storage_commitment = true`)

        The request follows on the association of the C-STOREs.
        The report is taken on the same association for
        {fields["commitment_linger_s"].default:g} s, and on a new one at any later time.
        Reports are taken from the destination alone: its AE title from an address of its host, or
        its AE title as bound by `[[dicom.peer]]`. Transaction UIDs are random; a report on a
        transaction that is not open with its sender is answered with 0115H and kept nowhere.
        A report settles the instances that it names, and several reports on one transaction add
        up. A result counts as delivered when it is committed; one that is not kept is sent again.
        What no report names is overdue after `commitment_timeout_s`: it is requested again under
        a new Transaction UID, three times, then parked for a person.

        ### 4.4 Rejection Notes (`reject_replaced = true`)

        Once an amended report has arrived, one Key Object Selection per study, titled Rejected for
        Quality Reasons (113001, DCM) with the modifier "Replaced by a newer version of the report",
        names the objects that it replaces (IHE RAD IOCM). Nothing is rejected otherwise.
        """
    )


def _offered(sop_class_uid: str) -> Sequence[UID]:
    """Pictures are made as JPEG unless the site says otherwise; all else is uncompressed."""
    is_picture = sop_class_uid == SOP_CLASSES[ResultKind.GALLERY]
    return transcode.candidate_syntaxes(
        JPEGBaseline8Bit if is_picture else ExplicitVRLittleEndian,
        has_8_bit_pixels=is_picture,
        preference=transcode.BY_PREFERENCE,
    )


def _dicomweb() -> Iterator[str]:
    yield from _text(
        """
        ## 5 DICOMweb

        As origin server: `POST /dicom-web/studies` (STOW-RS, PS3.18 10.5) with
        `multipart/related; type="application/dicom"`, for the SOP classes of 3.1 and the transfer
        syntaxes of 3.2.
        As user agent: STOW-RS of a report's objects in one request with
        `Accept: application/dicom+json`; each instance's outcome is read from the Store Instances
        Response.
        OAuth 2 client credentials and SMART Backend Services are supported.
        """
    )


def _media() -> Iterator[str]:
    yield from _text(
        """
        ## 6 Media interchange

        None of the application profiles of PS3.11.
        A destination of type `folder` gets the objects as files after PS3.10, named by their SOP
        Instance UIDs, without a DICOMDIR.
        """
    )


def _character_sets() -> Iterator[str]:
    yield from _text(
        """
        ## 7 Character sets

        Results take over Specific Character Set and the attributes under it from their source.
        Own text is ASCII, which every character set of PS3.3 C.12.1.1.2 holds.
        A pseudonymised result is written in ISO_IR 192.
        """
    )


def _security() -> Iterator[str]:
    yield from _text(
        f"""
        ## 8 Security

        - BCP 195 RFC 9325 Secure Transport Connection Profile (PS3.15 B.12), both ways: TLS 1.2
          and 1.3, cipher suites of TLS 1.2 `{tls.CIPHERS}`.
        - Certificates of both ends are checked; the server's name too. New certificate files count
          from the next connection on, without a restart.
        - An AE title can be tied to addresses and to a certificate's subject.
        - Audit trail: one event per step, chained by hash and signed; by syslog over TLS to an
          audit repository where the site wants it, as DICOM Audit Messages (PS3.15 A.5). The trail
          holds no patient identity, so the Patient participant of A.5.3.6 and A.5.3.7 is absent,
          and messages about studies say so; SOP classes stand where instances were received.
          Signed checkpoints, verification and export are Audit Log Used (A.5.3.2), with the log's
          URI as their object.
        """
    )


# --- Annex: what is made


def _created_objects() -> Iterator[str]:
    yield from _text(
        f"""
        ## 9 Objects that are made

        One series per kind and version, in the study of the source, and one per field of the
        segmentations; numbers far above a device's own, with 10 more in each version, dated by
        Series Date and Series Time.
        The structured report of a later version names the one before in Predecessor Documents
        Sequence.
        It is PRELIMINARY and UNVERIFIED until a person signs; then FINAL and VERIFIED with that
        person.
        Every object has Content Qualification (0018,9004) RESEARCH, the Series Description ends
        with RESEARCH USE ONLY, and Contributing Equipment names device, software, network and its
        SHA-256.
        UIDs are derived (2.25) from the sources, the network and the version of the report: the
        same report gives the same objects.
        The structured report lists the {MOST_CELLS} most suspicious cells.
        The area of a cell is that of its pixels, everywhere: its mask has these pixels, and its
        polygon in presentation state, report and annotations encloses their area.
        A contour in the JSON of `smearlink analyse` runs through the centers of its outermost
        pixels, which belong to the cell.
        Masks lie in the Frame of Reference of their source; those of a photograph, which has none,
        in one of their own, in millimeters from its upper left pixel.
        No private attributes, at any depth.
        Text is copied byte by byte under the character set of the source.
        """
    )
    yield from _table(
        ("Object", "SOP class", "Modality", "Series Number", "Series Description ends", "Template"),
        [
            (
                _words(kind),
                UID(SOP_CLASSES[kind]).name,
                MODALITIES[kind],
                f"{SERIES_NUMBERS[kind]}",
                SERIES_WORDS[kind],
                TEMPLATES.get(kind, ""),
            )
            for kind in SOP_CLASSES
        ],
    )
    yield from _text(
        """
        Presentation states are made of color images alone, segmentations and annotations of
        fields with cells, annotations where the source has Frame of Reference UID, Pixel Spacing,
        Image Orientation (Slide) and its center on the slide.

        ### 9.1 Attributes from the source

        Present, and empty where the source has no value:
        """
    )
    yield ", ".join((*PATIENT_TYPE_2, *STUDY_TYPE_2)) + "."
    yield ""
    yield "Copied where the source has a value:"
    yield ""
    yield ", ".join(COPIED_WHEN_PRESENT) + "."
    yield ""
    yield "Copied into pictures where the source has a whole Specimen Module:"
    yield ""
    yield ", ".join(SPECIMEN_MODULE) + "."
    yield ""


def _codes() -> Iterator[str]:
    scheme = config.dicom_codes.SMEARLINK.designator
    yield f"## 10 Private coding scheme {scheme}"
    yield ""
    yield (
        "Named in Coding Scheme Identification Sequence (0008,0110). Reasons for referral and "
        "quality flags stand under it as well, spelled as in the settings, in capitals."
    )
    yield from _table(("Code Value", "Code Meaning"), sorted(_own_concepts()))


def _own_concepts() -> set[tuple[str, str]]:
    """Every concept of our own that the table of codes names."""
    values = vars(config.dicom_codes).values()
    concepts = [one for one in values if isinstance(one, Concept)]
    concepts += config.dicom_codes.CALLS.values()
    return {
        (one.code, one.display) for one in concepts if one.system == config.dicom_codes.SMEARLINK
    }


# --- Markdown


def _text(paragraphs: str) -> Iterator[str]:
    """The paragraphs, one sentence a line however the lines stand here."""
    yield ""
    said = ""
    for line in dedent(paragraphs).strip().splitlines():
        is_own = not line or line.startswith(("#", "- ", "<!--"))
        if said and (is_own or said.endswith((".", ":", ".**", "-->")) or said.startswith("#")):
            yield said
            said = ""
        if line:
            said = f"{said} {line.strip()}" if said else line
        else:
            yield ""
    yield said
    yield ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from (_row(row) for row in rows)
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _context(uid: str, role: str, syntaxes: Sequence[str]) -> tuple[str, str, str, str]:
    return UID(uid).name, str(uid), ", ".join(syntaxes), role


def _words(name: str) -> str:
    return name.replace("_", " ").lower()


def _meanings(statuses: type[IntEnum]) -> Iterator[tuple[str, str]]:
    """Each member with the sentence that stands under it in the source."""
    [definition] = ast.parse(dedent(inspect.getsource(statuses))).body
    name = ""
    for node in getattr(definition, "body", ()):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]):
                continue
            case ast.Expr(value=ast.Constant(value=str(words))) if name:
                yield format_status(statuses[name]), " ".join(words.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
