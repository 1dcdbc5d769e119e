"""A field's findings as plain JSON values and back, exactly: what a durable step keeps on disk.

Everything comes back as it was, but for activation maps, which keep three decimals: they are a
7 × 7 picture for the eye. Reading trusts nothing and builds no value from a record of another
format or without the research-use label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from pipeline.domain import (
    RESEARCH_USE_ONLY,
    Box,
    CalibrationIdentity,
    Call,
    Cell,
    CellFinding,
    CellKind,
    CellShape,
    CellType,
    Contour,
    FieldFindings,
    FieldQuality,
    ModelIdentity,
    Prediction,
    QualityFlag,
    ReferralReason,
    Scale,
    ScaleSource,
    SeriesUID,
    SOPInstanceUID,
    StudyUID,
)
from pipeline.errors import Defect

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

FORMAT = 1
"""Raised when a reader of the former format would misread a record."""

MAP_DECIMALS = 3


def field_to_record(field: FieldFindings) -> dict[str, JSON]:
    """The findings as JSON values; contours as flat lists x, y, x, y … in source pixels."""
    return {
        "format": FORMAT,
        "research_use_only": True,
        "label": RESEARCH_USE_ONLY,
        "study_uid": field.study_uid,
        "series_uid": field.series_uid,
        "sop_instance_uid": field.sop_instance_uid,
        "frame": field.frame,
        "width": field.width,
        "height": field.height,
        "scale": _plain(field.scale),
        "quality": {
            "flags": [str(flag) for flag in sorted(field.quality.flags)],
            "is_usable": field.quality.is_usable,
            "figures": dict(field.quality.figures),
        },
        "model": _model_to_record(field.model),
        "cells": [finding_to_record(cell) for cell in field.cells],
    }


def field_from_record(record: Mapping[str, Any]) -> FieldFindings:
    """The findings that `field_to_record` wrote; raises `Defect` on anything else."""
    if record.get("format") != FORMAT or record.get("research_use_only") is not True:
        raise Defect(
            f"A findings record must have format {FORMAT} and the research-use label; "
            "analyse the image again.",
            code="record_format",
        )
    try:
        return _field_from_record(record)
    except (KeyError, TypeError, ValueError) as err:
        raise Defect(
            f"A findings record cannot be read ({type(err).__name__}); analyse the image again.",
            code="record_damaged",
        ) from err


def _field_from_record(record: Mapping[str, Any]) -> FieldFindings:
    quality = record["quality"]
    return FieldFindings(
        study_uid=StudyUID(record["study_uid"]),
        series_uid=SeriesUID(record["series_uid"]),
        sop_instance_uid=SOPInstanceUID(record["sop_instance_uid"]),
        frame=record["frame"],
        width=record["width"],
        height=record["height"],
        scale=Scale(**{**record["scale"], "source": ScaleSource(record["scale"]["source"])}),
        quality=FieldQuality(
            flags=frozenset(QualityFlag(flag) for flag in quality["flags"]),
            is_usable=quality["is_usable"],
            figures=dict(quality["figures"]),
        ),
        cells=tuple(finding_from_record(cell) for cell in record["cells"]),
        model=_model_from_record(record["model"]),
    )


def finding_to_record(finding: CellFinding) -> JSON:
    """One cell as JSON values, as the network left it: no person's decision is in it."""
    return {
        "cell": _cell_to_record(finding.cell),
        "prediction": _prediction_to_record(finding.prediction),
        "cell_type": str(finding.cell_type),
        "call": str(finding.call),
        "reasons": [str(reason) for reason in finding.reasons],
    }


def finding_from_record(record: Mapping[str, Any]) -> CellFinding:
    """The cell that `finding_to_record` wrote; KeyError, TypeError or ValueError otherwise."""
    return CellFinding(
        cell=_cell_from_record(record["cell"]),
        prediction=_prediction_from_record(record["prediction"]),
        cell_type=CellType(record["cell_type"]),
        call=Call(record["call"]),
        reasons=tuple(ReferralReason(reason) for reason in record["reasons"]),
    )


def _cell_to_record(cell: Cell) -> JSON:
    return {
        "index": cell.index,
        "kind": str(cell.kind),
        "box": _plain(cell.box),
        "contour": _flat(cell.contour),
        "nucleus_contours": [_flat(contour) for contour in cell.nucleus_contours],
        "shape": _plain(cell.shape),
        "is_cut_by_edge": cell.is_cut_by_edge,
        "is_touching": cell.is_touching,
        "confidence": cell.confidence,
    }


def _cell_from_record(record: Mapping[str, Any]) -> Cell:
    return Cell(
        index=record["index"],
        kind=CellKind(record["kind"]),
        box=Box(**record["box"]),
        contour=_contour(record["contour"]),
        nucleus_contours=tuple(_contour(points) for points in record["nucleus_contours"]),
        shape=CellShape(**record["shape"]),
        is_cut_by_edge=record["is_cut_by_edge"],
        is_touching=record["is_touching"],
        confidence=record["confidence"],
    )


def _prediction_to_record(prediction: Prediction) -> JSON:
    rows = prediction.activation_map.astype(float).round(MAP_DECIMALS)
    return {
        "leukemic_probability": prediction.leukemic_probability,
        "type_probabilities": list(prediction.type_probabilities),
        "activation_map": rows.tolist(),
        "novelty": prediction.novelty,
    }


def _prediction_from_record(record: Mapping[str, Any]) -> Prediction:
    return Prediction(
        leukemic_probability=record["leukemic_probability"],
        type_probabilities=tuple(record["type_probabilities"]),
        activation_map=np.array(record["activation_map"], dtype=np.float32),
        novelty=record["novelty"],
    )


def _model_to_record(model: ModelIdentity) -> dict[str, JSON]:
    """Without a calibration there is no word of it, as in records of versions that had none."""
    record = _plain(model)
    del record["calibration"]
    if model.calibration is not None:
        record["calibration"] = _plain(model.calibration)
    return record


def _model_from_record(record: Mapping[str, Any]) -> ModelIdentity:
    values = dict(record)
    if "calibration" in values:
        values["calibration"] = CalibrationIdentity(**values["calibration"])
    return ModelIdentity(**values)


def _plain(
    value: Box | CellShape | Scale | ModelIdentity | CalibrationIdentity,
) -> dict[str, JSON]:
    """A flat value as its fields; its words (enums) as their text."""
    return {
        name: str(part) if isinstance(part, str) else part
        for name in type(value).__dataclass_fields__
        for part in [getattr(value, name)]
    }


def _flat(contour: Contour) -> JSON:
    return [int(number) for number in contour.ravel()]


def _contour(points: list[int]) -> Contour:
    return np.array(points, dtype=np.int32).reshape(-1, 2)
