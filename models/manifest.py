"""`manifest.toml`: the files of the model, their hashes, what they answer and when to doubt."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.domain import DecisionPolicy
from pipeline.errors import Defect


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One ONNX file of the model, at one precision."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a loaded model must agree with."""

    name: str
    version: str
    labels: tuple[str, ...]
    files: Mapping[str, ModelFile]
    """By precision: int8, fp16."""
    policy: DecisionPolicy


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; raises Defect (code model_damaged) naming what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return _manifest(table)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise _unusable(f"it cannot be read ({type(err).__name__})") from err
    except KeyError as err:
        raise _unusable(f"the key {err.args[0]!r} is missing") from err
    except (AttributeError, TypeError, ValueError) as err:
        raise _unusable(f"a value has the wrong form ({err})") from err


def _manifest(table: Mapping[str, Any]) -> Manifest:
    limits = table["policy"]
    policy = DecisionPolicy(
        refer_above=float(limits["refer_above"]),
        leukemic_from=float(limits["leukemic_from"]),
        novelty_limit=float(limits["novelty_limit"]),
        type_from=float(limits.get("type_from", 0.5)),
    )
    if not 0 <= policy.refer_above <= policy.leukemic_from <= 1 or not policy.novelty_limit > 0:
        raise ValueError("policy needs 0 ≤ refer_above ≤ leukemic_from ≤ 1 and a novelty_limit > 0")
    if not 0 < policy.type_from <= 1:
        raise ValueError("policy needs 0 < type_from ≤ 1")
    return Manifest(
        name=str(table["model"]["name"]),
        version=str(table["model"]["version"]),
        labels=tuple(str(label) for label in table["model"]["labels"]),
        files={
            str(precision): ModelFile(name=str(file["name"]), sha256=str(file["sha256"]))
            for precision, file in table["files"].items()
        },
        policy=policy,
    )


def _unusable(what: str) -> Defect:
    return Defect(
        f"The model's manifest.toml is unusable: {what}. Restore models/ from the release.",
        code="model_damaged",
    )
