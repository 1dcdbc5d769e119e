"""What the trunk of a packaged network says of every packed crop, pooled.

`python -m models.training.pooled --pack RUN/pack --graph models/smearnet-int8.onnx`

The trunk stays as it is, so that heads can be fitted in seconds (`heads.py`) and every way of
fitting can be judged on laboratories left out (`leave_out_laboratories.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.training.augment import apply_mask
from models.training.graph_nodes import NodeBuilder, last_means, third_stage_of_the_cell

BATCH = 16
FILE = "pooled.npz"

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pooled:
    """Features of N crops."""

    third: Features
    """N×2048: means of the 1,024 maps of the third stage over nucleus and cytoplasm."""
    last: Features
    """N×2048: mean over the picture of the maps of the last stage."""
    marrow: NDArray[np.float32]
    """N: leukemic log odds of the head that the trunk was trained with."""
    novelty: NDArray[np.float32]
    """N: as the graph says it."""

    @property
    def features(self) -> Features:
        return np.concatenate([self.third, self.last], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--graph", type=Path, required=True)
    options = parser.parse_args()
    session = trunk_session(options.graph)
    parts = [pooled(session, crops) for crops in _masked(options.pack)]
    np.savez(
        options.pack / FILE,
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in Pooled.__dataclass_fields__
        },
    )


def read_pooled(pack: Path) -> Pooled:
    """What `main` wrote beside the pack."""
    with np.load(pack / FILE) as stored:
        return Pooled(**{name: stored[name] for name in Pooled.__dataclass_fields__})


def _masked(pack: Path) -> Iterator[NDArray[np.uint8]]:
    """The crops as the service cuts them."""
    crops = np.load(pack / "crops.npy", mmap_mode="r")
    masks = np.load(pack / "masks.npy", mmap_mode="r")
    for first in range(0, len(crops), BATCH):
        part = slice(first, first + BATCH)
        views = [
            apply_mask(np.array(c), np.array(m))
            for c, m in zip(crops[part], masks[part], strict=True)
        ]
        yield np.stack(views)


def pooled(session: onnxruntime.InferenceSession, crops: NDArray[np.uint8]) -> Pooled:
    """Of crops as the service cuts them."""
    third, last, probability, novelty = session.run(None, {"crops": crops})
    odds = np.clip(probability, 1e-6, 1 - 1e-6)
    return Pooled(
        third=third,
        last=last,
        marrow=np.log(odds / (1 - odds)),
        novelty=novelty,
    )


def trunk_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """The graph, answering what `pooled` takes."""
    model = onnx.load(path)
    graph = model.graph
    build = NodeBuilder(graph)
    cell = third_stage_of_the_cell(build, graph)
    flat = [build("Flatten", one, axis=1) for one in (cell.nucleus.mean, cell.cytoplasm.mean)]
    third, means = build("Concat", *flat, axis=1), last_means(graph)
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in (third, means, "leukemic_probability", "novelty")
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


if __name__ == "__main__":
    main()
