"""Write `manifest.toml` for the model files in a folder: `python -m models.training.manifest`."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from models.training.calibrate import Calibration, read_calibration
from pipeline.domain import CELL_TYPES

PRECISIONS = ("int8", "fp16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="holds smearnet-*.onnx")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the data pack trained on")
    parser.add_argument("--version", required=True)
    parser.add_argument("--commit", required=True, help="of the training code")
    options = parser.parse_args()
    files = [options.folder / f"smearnet-{precision}.onnx" for precision in PRECISIONS]
    text = manifest_text(
        files={p: f for p, f in zip(PRECISIONS, files, strict=True) if f.is_file()},
        calibration=read_calibration(options.calibration),
        data_sha256=_sha256(options.data / "manifest.csv"),
        version=options.version,
        commit=options.commit,
    )
    (options.folder / "manifest.toml").write_text(text, encoding="utf-8")
    print(text)


def manifest_text(
    *, files: dict[str, Path], calibration: Calibration, data_sha256: str, version: str, commit: str
) -> str:
    """All that loading checks and a reader wants to know, as TOML."""
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
architecture = "ResNet-50, leukemic and cell-type heads"
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
cell_type = "N×10, in the order of labels, sums to 1"
activation_map = "N×7×7, what each place adds to the leukemic logit, negatives cut"
novelty = "N, distance to the nearest class of the training data in its own deviations"

{tables}
[policy]
# A probability in [refer_above, leukemic_from) is referred; so is novelty above the limit.
refer_above = {calibration.refer_above}
leukemic_from = {calibration.leukemic_from}
novelty_limit = {calibration.novelty_limit:.3f}
# A type with a lower probability is not told.
type_from = 0.5

[calibration]
# Already inside the graph; kept here for the reader.
slope = {calibration.slope:.4f}
intercept = {calibration.intercept:.4f}
type_temperature = {calibration.temperature:.4f}

[training]
data_manifest_sha256 = "{data_sha256}"
code_commit = "{commit}"
"""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
