"""What the trunk of a packaged network says of every packed crop, pooled over the picture.

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

BATCH = 16
LAST_STAGE = "network.layer4.0.conv1.weight"
"""Its input is what the third stage says."""
FILE = "pooled.npz"

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pooled:
    """Features of N crops."""

    third: Features
    """N×2048: mean and spread of the 1,024 maps of the third stage."""
    last: Features
    """N×2048: mean of the maps of the last stage."""
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
    maps = third.reshape(*third.shape[:2], -1).astype(np.float32)
    odds = np.clip(probability, 1e-6, 1 - 1e-6)
    return Pooled(
        third=np.concatenate([maps.mean(axis=2), maps.std(axis=2)], axis=1),
        last=last,
        marrow=np.log(odds / (1 - odds)),
        novelty=novelty,
    )


def trunk_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """The graph, answering what `pooled` takes."""
    model = onnx.load(path)
    graph = model.graph
    maps, means = third_stage(graph), last_means(graph)
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in (maps, means, "leukemic_probability", "novelty")
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def third_stage(graph: onnx.GraphProto) -> str:
    """Name of the maps that enter the last stage, at 32 bits or 16."""
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight = makers.get(node.input[1])
        names = {node.input[1], *(weight.input if weight else ())}
        if names & {LAST_STAGE, f"{LAST_STAGE}_quantized"}:
            return str(node.input[0])
    raise ValueError("the graph has no last stage of the expected name")


def last_means(graph: onnx.GraphProto) -> str:
    """Name of the last stage's maps, averaged over the picture, at 32 bits."""
    (node,) = [node for node in graph.node if node.name == "node_mean"]
    return str(node.output[0])


if __name__ == "__main__":
    main()
