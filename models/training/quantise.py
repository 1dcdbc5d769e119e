"""Make the 8-bit model for CPUs: QDQ, unsigned activations, signed weights per channel.

`python -m models.training.quantise --pack … --model …/smearnet-fp32.onnx --out …`
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from models.training.augment import apply_mask
from models.training.data import draw_chances, read_rows

CALIBRATION_CROPS = 1024
BATCH = 8
SEED = 8
FLOAT_CONVOLUTIONS = 11
"""Stem and first stage stay at 32 bits: at 8, probabilities move by 0.008 (mean), not by 0.003."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(options.model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(options.out),
            MixedCrops(options.pack),
            quant_format=QuantFormat.QDQ,
            # A convolution and its Relu become one step, rounded once.
            op_types_to_quantize=["Conv", "Relu", "Add", "MaxPool"],
            nodes_to_exclude=float_nodes(prepared),
            per_channel=True,
            # Without VNNI, products of 8-bit weights saturate: 7 bits give every CPU one answer.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
    print(options.out, options.out.stat().st_size)


class MixedCrops(CalibrationDataReader):
    """Masked training crops of every source, drawn as the training draws them."""

    def __init__(self, pack: Path) -> None:
        rows = read_rows(pack)
        train = [index for index, row in enumerate(rows) if row.part == "train"]
        chances = draw_chances([rows[index] for index in train])
        drawn = np.random.default_rng(SEED).choice(
            train, CALIBRATION_CROPS, replace=False, p=chances
        )
        self._batches = _batches(pack, drawn)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        crops = next(self._batches, None)
        return None if crops is None else {"crops": crops}


def _batches(pack: Path, drawn: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    crops = np.load(pack / "crops.npy", mmap_mode="r")
    masks = np.load(pack / "masks.npy", mmap_mode="r")
    for first in range(0, len(drawn), BATCH):
        part = drawn[first : first + BATCH]
        yield np.stack([apply_mask(np.array(crops[i]), np.array(masks[i])) for i in part])


def float_nodes(model: Path) -> list[str]:
    """Stain, stem and first stage; heads, novelty and map: what 8 bits would blur most."""
    nodes = onnx.load(str(model), load_external_data=False).graph.node
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    inside = range(convolutions[FLOAT_CONVOLUTIONS], convolutions[-1] + 2)
    return [node.name for index, node in enumerate(nodes) if index not in inside]


if __name__ == "__main__":
    main()
