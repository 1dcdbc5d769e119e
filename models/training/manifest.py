"""Write `manifest.toml` for the model files in a folder: `python -m models.training.manifest`."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.domain import CELL_TYPES

PRECISIONS = ("int8", "fp16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="holds smearnet-*.onnx")
    parser.add_argument("--heads", type=Path, required=True, help="of leave_out_laboratories.py")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="packs trained on")
    parser.add_argument("--version", required=True)
    parser.add_argument("--commit", required=True, help="of the training code")
    options = parser.parse_args()
    files = [options.folder / f"smearnet-{precision}.onnx" for precision in PRECISIONS]
    text = manifest_text(
        files={p: f for p, f in zip(PRECISIONS, files, strict=True) if f.is_file()},
        heads=read_heads(options.heads),
        data_sha256=[_sha256(pack / "manifest.csv") for pack in options.data],
        version=options.version,
        commit=options.commit,
    )
    (options.folder / "manifest.toml").write_text(text, encoding="utf-8")
    print(text)


def manifest_text(
    *,
    files: Mapping[str, Path],
    heads: Mapping[str, float],
    data_sha256: Sequence[str],
    version: str,
    commit: str,
) -> str:
    """All that loading checks and a reader wants to know, as TOML."""
    packs = "\n".join(f'  "{digest}",' for digest in data_sha256)
    labels = "\n".join(f'  "{kind.value}",' for kind in CELL_TYPES)
    tables = "\n".join(
        f'[files.{precision}]\nname = "{path.name}"\nsha256 = "{_sha256(path)}"\n'
        for precision, path in files.items()
    )
    return f"""\
# What the model is and what it must agree with; models/classifier.py refuses what differs.
# Written by models/training/manifest.py. Research use only.

[model]
name = "smearnet"
version = "{version}"
architecture = "ResNet-50, linear heads on its third and last stage"
labels = [
{labels}
]

[input]
name = "crops"
shape = ["N", 224, 224, 3]
type = "uint8"
colour = "RGB"
field_of_view_um = 24.0
background = "black outside the outline of the cell (pipeline/findings/crops.py)"

[outputs]
leukemic_probability = "N, calibrated, 0 to 1"
cell_type = "N×{len(CELL_TYPES)}, in the order of labels, sums to 1"
activation_map = "N×7×7, what each place adds to the leukemic logit, negatives cut"
novelty = "N, distance to the nearest class of the training data in its own deviations"

{tables}
[policy]
# A probability in [refer_above, leukemic_from) is referred; so is novelty above the limit.
refer_above = {heads["refer_above"]:.2f}
leukemic_from = {heads["leukemic_from"]:.2f}
novelty_limit = {heads["novelty_limit"]:.3f}
# A type with a lower probability is not told.
type_from = 0.4

[calibration]
# Already inside the graph; kept here for the reader.
slope = {heads["slope"]:.4f}
intercept = {heads["intercept"]:.4f}
type_temperature = {heads["temperature"]:.4f}

[training]
data_manifest_sha256 = [
{packs}
]
code_commit = "{commit}"
"""


def read_heads(path: Path) -> dict[str, float]:
    """Single figures of the heads that `leave_out_laboratories.py` wrote."""
    with np.load(path) as stored:
        return {name: float(stored[name]) for name in stored.files if stored[name].ndim == 0}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
