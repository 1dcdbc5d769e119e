"""Review events as JSON values and back: what the data folder keeps of a review."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pipeline.domain import RESEARCH_USE_ONLY, Reviewer
from pipeline.errors import Defect
from pipeline.findings.review import Act, CellKey, FieldKey, ReviewEvent
from pipeline.findings.serialization import JSON, finding_from_record, finding_to_record

FORMAT = 1
"""Raised when a reader of the former format would misread a record."""


def event_to_record(event: ReviewEvent) -> dict[str, JSON]:
    """The event as JSON values; times in UTC, ISO 8601."""
    return {
        "format": FORMAT,
        "research_use_only": True,
        "label": RESEARCH_USE_ONLY,
        "id": event.id,
        "revision": event.revision,
        "at": event.at.astimezone(UTC).isoformat(),
        "reviewer": asdict(event.reviewer),
        "act": str(event.act),
        "cells": list(event.cells),
        "fields": list(event.fields),
        "before": list(event.before),
        "to": event.to,
        "reason": event.reason,
        "comment": event.comment,
        "undoes": event.undoes,
        "added": None if event.added is None else finding_to_record(event.added),
        "model_sha256": event.model_sha256,
        "is_blind": event.is_blind,
    }


def event_from_record(record: Mapping[str, Any]) -> ReviewEvent:
    """The event that `event_to_record` wrote; raises `Defect` on anything else."""
    if record.get("format") != FORMAT or record.get("research_use_only") is not True:
        raise Defect(
            f"A review event must have format {FORMAT} and the research-use label; "
            "restore it from a backup.",
            code="review_format",
        )
    try:
        return ReviewEvent(
            id=record["id"],
            revision=record["revision"],
            at=datetime.fromisoformat(record["at"]),
            reviewer=Reviewer(**record["reviewer"]),
            act=Act(record["act"]),
            cells=tuple(CellKey(key) for key in record["cells"]),
            fields=tuple(FieldKey(key) for key in record["fields"]),
            before=tuple(record["before"]),
            to=record["to"],
            reason=record["reason"],
            comment=record["comment"],
            undoes=record["undoes"],
            added=None if record["added"] is None else finding_from_record(record["added"]),
            model_sha256=record["model_sha256"],
            is_blind=record["is_blind"],
        )
    except (KeyError, TypeError, ValueError) as err:
        raise Defect(
            f"A review event cannot be read ({type(err).__name__}); restore it from a backup.",
            code="review_damaged",
        ) from err
