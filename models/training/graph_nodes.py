"""Nodes added to a graph that export.py or quantise.py wrote, and the tensors that they read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

THIRD_STRIDE = 16
"""Pixels of the network's input between two places of the third stage's maps."""
LAST_STAGE = "network.layer4.0.conv1.weight"
"""Its input is what the third stage says."""
LEAST_SHARE = 1e-4
"""Added to the share of a zone in each place, so that an empty crop has a mean as well."""
GREEN = 1
"""The channel in which nucleus and cytoplasm differ most."""
NUCLEUS_SLOPE = 4.0
"""Of the logit that a pixel belongs to the nucleus, a deviation of the cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A part of the cell: names of tensors, at 32 bits."""

    weights: str
    """N×1×H×W: the share of the zone in each place, with a sum of 1."""
    mean: str
    """N×C×1×1, the maps' mean over the zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMaps:
    """The third stage over the dark and the light part of the cell."""

    maps: str
    """N×C×H×W, at 32 bits."""
    nucleus: Zone
    cytoplasm: Zone


class NodeBuilder:
    """Adds nodes and constants to a graph, each with a name of its own."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._count = graph, 0
        self._taken = {name for node in graph.node for name in node.output}
        self._taken |= {one.name for one in graph.initializer}

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

    def total(self, maps: str) -> str:
        """Sum over the picture, N×C×1×1."""
        return self("ReduceSum", maps, self.integers([2, 3]), keepdims=1)

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
        while (name := f"heads_{self._count}") in self._taken:
            self._count += 1
        self._taken.add(name)
        return name


def third_stage_of_the_cell(build: NodeBuilder, graph: onnx.GraphProto) -> CellMaps:
    """Means over nucleus and cytoplasm, whatever their size.

    A pixel belongs to the nucleus as far as its green channel is darker than the cell's mean, in
    deviations of the cell.
    """
    maps = build("Cast", third_stage(graph), to=TensorProto.FLOAT)
    green = build.columns(network_input(graph), GREEN, GREEN + 1)
    cell = lit(graph)
    dark = build("Sigmoid", build("Mul", green, build.constant([-NUCLEUS_SLOPE])))
    nucleus = build("Mul", dark, cell)
    return CellMaps(
        maps=maps,
        nucleus=_zone(build, maps, nucleus),
        cytoplasm=_zone(build, maps, build("Sub", cell, nucleus)),
    )


def _zone(build: NodeBuilder, maps: str, pixels: str) -> Zone:
    side = [THIRD_STRIDE, THIRD_STRIDE]
    share = build("AveragePool", pixels, kernel_shape=side, strides=side, ceil_mode=1)
    share = build("Add", share, build.constant([LEAST_SHARE]))
    weights = build("Div", share, build.total(share))
    return Zone(weights=weights, mean=build.total(build("Mul", maps, weights)))


def network_input(graph: onnx.GraphProto) -> str:
    """Name of the standardized crops at 32 bits, N×3×side×side; dark is below 0."""
    makers = {name: node for node in graph.node for name in node.output}
    name = next(node.input[0] for node in graph.node if node.op_type == "Conv")
    while name in makers and makers[name].op_type == "Cast":
        name = makers[name].input[0]
    return str(name)


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


def lit(graph: onnx.GraphProto) -> str:
    """Name of what is 1 on the cell and 0 on the black around it, N×1×side×side."""
    (above,) = [node.output[0] for node in graph.node if node.op_type == "Greater"]
    (node,) = [n for n in graph.node if n.op_type == "Cast" and n.input[0] == above]
    return str(node.output[0])
