"""Put fitted heads onto a packaged trunk: `python -m models.training.attach_heads --help`.

Works on the files themselves, 8-bit and 16-bit alike: the trunk keeps every bit of its weights, so
nothing is quantised again, and speed stays what it was.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from models.calibrated_classifier import CALL_POWER
from models.training.export import places
from models.training.graph_nodes import (
    THIRD_STRIDE,
    CellMaps,
    NodeBuilder,
    last_means,
    third_stage_of_the_cell,
)
from models.training.heads import SMUDGE, leukemic_types, log_chances, normal_types
from models.training.network import CROP_PX, MAP_SIDE
from pipeline.domain import CELL_TYPES

MAPS = 1024
"""Of the third stage: the heads' first columns are means over the nucleus, the next ones means over
the cytoplasm."""
LAST_STRIDE = 32
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
    _set_old_answers_aside(graph)
    build = NodeBuilder(graph)
    cell = third_stage_of_the_cell(build, graph)
    flat = [build("Flatten", one, axis=1) for one in (cell.nucleus.mean, cell.cytoplasm.mean)]
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
        cell,
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


def _types(build: NodeBuilder, logits: str, leukemic: str, smudge: str) -> None:
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
    share = _followed(build, leukemic)
    mixed = build("Add", groups[0], build("Mul", share, build("Sub", groups[1], groups[0])))
    one = build.constant((np.arange(len(CELL_TYPES)) == SMUDGE).astype(float)[None])
    build("Add", mixed, build("Mul", smudge, build("Sub", one, mixed)), output="cell_type")


def _followed(build: NodeBuilder, leukemic: str) -> str:
    """As heads.py draws a share to the nearer end."""
    power = build.constant(float(CALL_POWER))
    ahead = build("Pow", leukemic, power)
    behind = build("Pow", build("Sub", build.constant(1.0), leukemic), power)
    return build("Div", ahead, build("Add", ahead, behind))


def _weights_of_mean_one(build: NodeBuilder, weights: str, side_px: int) -> str:
    """N×H×W."""
    count = float(math.ceil(side_px / THIRD_STRIDE) ** 2)
    return build("Squeeze", build("Mul", weights, build.constant([count])), build.integers([1]))


def _of_zone(
    build: NodeBuilder,
    maps: str,
    weights: str,
    column: NDArray[np.float64],
    means: NDArray[np.float64],
    side_px: int,
) -> str:
    """What each place adds beyond what is ordinary, N×H×W."""
    added = build.weighted(maps, column)
    added = build("Sub", added, build.constant([float(means @ column)]))
    return build("Mul", added, _weights_of_mean_one(build, weights, side_px))


def _activation(
    build: NodeBuilder,
    cell: CellMaps,
    last: str,
    gate: str,
    column: NDArray[np.float64],
    offset: np.float64,
    means: NDArray[np.float64],
    sides: tuple[int, int],
) -> None:
    """What each place adds to the blood expert's logit, negatives cut.

    Its mean over the places of the trunk's maps is the logit; places weigh as much as the nucleus
    and the cytoplasm cover of them.
    """
    view_px, side_px = sides
    across = view_px * MAP_SIDE // CROP_PX
    ordinary = float(means @ column + offset)
    near = build(
        "Add",
        *(
            _of_zone(build, cell.maps, zone.weights, column[part], means[part], side_px)
            for zone, part in (
                (cell.nucleus, slice(MAPS)),
                (cell.cytoplasm, slice(MAPS, 2 * MAPS)),
            )
        ),
    )
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


if __name__ == "__main__":
    main()
