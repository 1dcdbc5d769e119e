"""Writes FHIR resources as NDJSON files into a folder, as research databases load them.

One file a Bundle and resource type, one resource a line, as in FHIR Bulk Data: a replay writes
the same file again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reporting.delivery import Receipt
from reporting.delivery.destinations.abandoned_drafts import AbandonedDrafts
from reporting.delivery.destinations.folder import FolderDestination, write_all
from reporting.delivery.outcome import deliver_each
from reporting.durable_files import PRIVATE_FILE
from reporting.research_label import check_labels
from reporting.results import Result, ResultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class NdjsonDestination:
    """A folder from which a database loads."""

    name: str
    folder: Path
    file_mode: int = PRIVATE_FILE
    kinds: frozenset[ResultKind] = frozenset({ResultKind.FHIR_BUNDLE})
    drafts: AbandonedDrafts = field(default_factory=AbandonedDrafts, compare=False, repr=False)

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Write every resource of every Bundle."""
        return deliver_each(check_labels(results, self.kinds), self._write)

    def check(self) -> str:
        """Whether the folder exists or can be made, and can be written."""
        folder = FolderDestination(name=self.name, path=self.folder, file_mode=self.file_mode)
        return folder.check()

    def _write(self, result: Result) -> str:
        files = _files_of(result)
        write_all(self.name, self.folder, files, drafts=self.drafts, mode=self.file_mode)
        return ""


def _files_of(result: Result) -> Iterator[tuple[str, bytes]]:
    stem = Path(result.name).stem
    for resource_type, lines in lines_by_type(result.content).items():
        yield f"{resource_type}.{stem}.ndjson", "".join(lines).encode("utf-8")


def lines_by_type(bundle: bytes) -> Mapping[str, list[str]]:
    """The lines of each resource type, in the order of the Bundle."""
    found: dict[str, list[str]] = {}
    for entry in json.loads(bundle)["entry"]:
        resource = entry["resource"]
        line = json.dumps(resource, ensure_ascii=False, separators=(",", ":"))
        found.setdefault(str(resource["resourceType"]), []).append(f"{line}\n")
    return found
