"""The last gate: only what the destination wants, and nothing without the research-use label."""

from __future__ import annotations

from collections.abc import Sequence

from reporting.research_label import check_label
from reporting.results import Result, ResultKind


def outgoing(results: Sequence[Result], kinds: frozenset[ResultKind]) -> tuple[Result, ...]:
    """The wanted results, each checked for its label; raises Defect before anything is sent."""
    wanted = tuple(result for result in results if result.kind in kinds)
    for result in wanted:
        check_label(result)
    return wanted
