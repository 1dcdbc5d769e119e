"""Blend two cell finders of one training line: weights between the packaged one and its successor.

`python -m models.training.segmenter_blend --first models/segmenter.onnx --second
C/segmenter.onnx --share 0.5 --out models`
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models.segmenter import DESCRIPTION
from models.training.segmenter import FILE, description


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=Path, required=True)
    parser.add_argument("--second", type=Path, required=True, help="trained on from the first")
    parser.add_argument("--share", type=float, required=True, help="of the second, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    blended = blend(onnx.load(options.first), onnx.load(options.second), options.share)
    onnx.save(blended, options.out / FILE)
    digest = hashlib.sha256((options.out / FILE).read_bytes()).hexdigest()
    (options.out / DESCRIPTION).write_text(description(digest), encoding="utf-8")


def blend(first: onnx.ModelProto, second: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """The second network with each filter and bias moved towards the first.

    Raises ValueError when the two do not have the same filters in the same order.
    """
    blended = onnx.ModelProto()
    blended.CopyFrom(second)
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in first.graph.initializer}
    tensors = {tensor.name: tensor for tensor in blended.graph.initializer}
    pairs = zip(_filters(first), _filters(blended), strict=True)
    for theirs, ours in pairs:
        before, after = known[theirs], numpy_helper.to_array(tensors[ours])
        if before.shape != after.shape:
            raise ValueError(f"{theirs} and {ours} are not the same filter")
        mixed = ((1 - share) * before + share * after).astype(np.float32)
        tensors[ours].CopyFrom(numpy_helper.from_array(mixed, ours))
    return blended


def _filters(model: onnx.ModelProto) -> list[str]:
    """Names of weights and biases of the convolutions, in the order of their work."""
    return [name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]]


if __name__ == "__main__":
    main()
