"""What the service and a process that builds parts of a report say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from listener.storage.results import WrittenResult
from pipeline.domain import SmearFindings
from pipeline.rendering.gallery import Card
from reporting.results import ObjectReference, ReportContext

READY = "ready"
"""The first thing that such a process says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTask:
    """One report. The numbers that follow name the parts to build, until the next task."""

    smear: SmearFindings
    objects: tuple[ObjectReference, ...]
    context: ReportContext
    inbox: Path
    folder: Path
    """Where the results are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartBuilt:
    """The results of one part are durable."""

    number: int
    results: tuple[WrittenResult, ...]
    cards: Mapping[int, Card]
    """Of the gallery, those that this task has cut since its last part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRefused:
    """One part could not be built; the service finds out why when it builds it itself."""

    number: int
