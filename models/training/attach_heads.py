"""Put fitted heads onto a packaged trunk: `python -m models.training.attach_heads --help`.

Works on the files themselves, 8-bit and 16-bit alike: the trunk keeps every bit of its weights, so
nothing is quantised again, and speed stays what it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.training.export import places
from models.training.heads import SMUDGE, leukemic_types, log_chances, normal_types
from models.training.network import CROP_PX, MAP_SIDE
from models.training.pooled import last_means, third_stage
from pipeline.domain import CELL_TYPES

MAPS = 1024
"""Of the third stage; the heads' first columns are their means, the next their spreads."""
THIRD_STRIDE, LAST_STRIDE = 16, 32
FORBIDDEN = -1e4
"""Added to the logit of a type that cannot be."""
REPLACED = ("leukemic_probability", "cell_type", "activation_map")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--graph", type=Path, required=True, help="as export.py or quantise.py wrote"
    )
    parser.add_argument("--heads", type=Path, required=True, help="of leave_out_laboratories.py")
    parser.add_argument("--view", type=int, default=160)
    parser.add_argument("--side", type=int, default=144)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with np.load(options.heads) as stored:
        weights, offsets, means = stored["weights"], stored["offsets"], stored["means"]
    model = onnx.load(options.graph)
    attach(model.graph, weights, offsets, means, view_px=options.view, side_px=options.side)
    onnx.checker.check_model(model)
    onnx.save(model, options.out)


def attach(
    graph: onnx.GraphProto,
    weights: NDArray[np.float64],
    offsets: NDArray[np.float64],
    means: NDArray[np.float64],
    *,
    view_px: int,
    side_px: int,
) -> None:
    """Replace the answers of `graph`; its own leukemic answer stays as the expert for marrow."""
    last, pooled_last = _last_maps(graph), last_means(graph)
    third = third_stage(graph)
    _set_old_answers_aside(graph)
    build = _Builder(graph)
    maps = build("Cast", third, to=TensorProto.FLOAT)
    mean, squares = build.mean(maps), build.mean(build("Mul", maps, maps))
    spread = build("Sqrt", build("Relu", build("Sub", squares, build("Mul", mean, mean))))
    flat = [build("Flatten", one, axis=1) for one in (mean, spread)]
    features = build("Concat", *flat, pooled_last, axis=1)
    logits = build(
        "Add",
        build("MatMul", features, build.constant(weights)),
        build.constant(offsets[None]),
    )
    blood, gate, smudge = (build("Sigmoid", build.columns(logits, k, k + 1)) for k in range(3))
    marrow = build("Unsqueeze", "trunk_leukemic_probability", build.integers([1]))
    leukemic = build("Add", blood, build("Mul", gate, build("Sub", marrow, blood)))
    build("Squeeze", leukemic, build.integers([1]), output="leukemic_probability")
    _types(build, build.columns(logits, 3, 3 + len(CELL_TYPES)), leukemic, smudge)
    _activation(
        build,
        (maps, mean, spread),
        last,
        gate,
        weights[:, 0],
        offsets[0],
        means,
        (view_px, side_px),
    )
    by_name = {value.name: value for value in graph.output}
    by_name["cell_type"].type.tensor_type.shape.dim[1].dim_value = len(CELL_TYPES)


def _set_old_answers_aside(graph: onnx.GraphProto) -> None:
    """The trunk's own leukemic answer and map by other names; its types go."""
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name in REPLACED:
                node.output[place] = f"trunk_{name}"
    wanted = {"trunk_leukemic_probability", "trunk_activation_map", "novelty"}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    # What only the heads need hangs on tensors that are wanted anyway.
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = {name for node in graph.node for name in node.input}
    stored = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(stored)


def _last_maps(graph: onnx.GraphProto) -> str:
    """The last stage's maps at 32 bits: what is averaged over the picture."""
    (node,) = [node for node in graph.node if node.output[0] == last_means(graph)]
    return str(node.input[0])


def _types(build: _Builder, logits: str, leukemic: str, smudge: str) -> None:
    """As heads.py composes them."""
    shifted = build("Add", logits, build.constant(log_chances()[None]))
    groups = [
        build(
            "Softmax",
            build("Add", shifted, build.constant(np.where(allowed, 0.0, FORBIDDEN)[None])),
            axis=1,
        )
        for allowed in (normal_types(), leukemic_types())
    ]
    mixed = build("Add", groups[0], build("Mul", leukemic, build("Sub", groups[1], groups[0])))
    one = build.constant((np.arange(len(CELL_TYPES)) == SMUDGE).astype(float)[None])
    build("Add", mixed, build("Mul", smudge, build("Sub", one, mixed)), output="cell_type")


def _activation(
    build: _Builder,
    third: tuple[str, str, str],
    last: str,
    gate: str,
    column: NDArray[np.float64],
    offset: np.float64,
    means: NDArray[np.float64],
    sides: tuple[int, int],
) -> None:
    """What each place adds to the blood expert's logit, negatives cut.

    Its mean over the places of the trunk's maps is the logit: a spread is the mean of each place's
    squared distance, divided by the spread.
    """
    maps, mean, spread = third
    view_px, side_px = sides
    across = view_px * MAP_SIDE // CROP_PX
    away = build("Sub", maps, mean)
    odd = build("Div", build("Mul", away, away), build("Add", spread, build.constant([1e-3])))
    added = [
        build.weighted(maps, column[:MAPS]),
        build.weighted(odd, column[MAPS : 2 * MAPS]),
    ]
    ordinary = float(means @ column + offset)
    near = build("Add", *added)
    near = build("Sub", near, build.constant([float(means[: 2 * MAPS] @ column[: 2 * MAPS])]))
    far = build.weighted(last, column[2 * MAPS :])
    far = build("Sub", far, build.constant([float(means[2 * MAPS :] @ column[2 * MAPS :])]))
    placed = [
        build.placed(near, places(side_px, across, THIRD_STRIDE)),
        build.placed(far, places(side_px, across, LAST_STRIDE)),
    ]
    whole = build("Relu", build("Add", build("Add", *placed), build.constant([ordinary])))
    ring = (MAP_SIDE - across) // 2
    padded = build("Pad", whole, build.integers([0, ring, ring, 0, ring, ring]))
    share = build("Unsqueeze", gate, build.integers([2]))
    difference = build("Sub", "trunk_activation_map", padded)
    build("Add", padded, build("Mul", share, difference), output="activation_map")


class _Builder:
    """Adds nodes and constants to a graph, each with a name of its own."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._count = graph, 0

    def __call__(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        name = output or self._name()
        self._graph.node.append(
            helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes)
        )
        return name

    def constant(self, values: object) -> str:
        return self._stored(np.asarray(values, np.float32))

    def integers(self, values: list[int]) -> str:
        return self._stored(np.array(values, np.int64))

    def columns(self, tensor: str, first: int, end: int) -> str:
        bounds = (self.integers([value]) for value in (first, end, 1))
        return self("Slice", tensor, *bounds)

    def mean(self, maps: str) -> str:
        """Over the picture, N×C×1×1."""
        return self("ReduceMean", maps, self.integers([2, 3]), keepdims=1)

    def weighted(self, maps: str, weights: NDArray[np.float64]) -> str:
        """Sum over the channels, N×H×W."""
        return self("Einsum", maps, self.constant(weights), equation="nchw,c->nhw")

    def placed(self, maps: str, matrix: NDArray[np.float32]) -> str:
        """Read in the middles of the cells of the activation map."""
        rows = self("MatMul", self.constant(matrix), maps)
        return self("MatMul", rows, self.constant(matrix.T))

    def _stored(self, values: NDArray[np.generic]) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"heads_{self._count}"


if __name__ == "__main__":
    main()
