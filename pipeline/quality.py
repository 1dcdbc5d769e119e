"""How far a field can be trusted, with coded reasons."""

from __future__ import annotations

from pipeline.domain import FieldQuality, QualityFlag, Scale, ScaleSource


def judge_quality(scale: Scale) -> FieldQuality:
    """The field's flags; usable unless one of them forbids counting."""
    flags = set()
    if scale.source is ScaleSource.ASSUMED:
        flags.add(QualityFlag.SCALE_UNKNOWN)
    return FieldQuality(flags=frozenset(flags), is_usable=True)
