"""What is read of the third stage is read of nucleus and cytoplasm, not of the black around."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the training environment is not installed")

import onnxruntime  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from models.training.graph_nodes import (  # noqa: E402
    LAST_STAGE,
    NodeBuilder,
    third_stage,
    third_stage_of_the_cell,
)

SIDE, CHANNELS = 48, 2
DRAWN = np.random.default_rng(11)


def small_graph(weight: str = LAST_STAGE) -> onnx.ModelProto:
    """Brightness, standardized crops and maps go in; stem and last stage are a convolution each."""
    nodes = [
        helper.make_node("Greater", ["bright", "limit"], ["above"]),
        helper.make_node("Cast", ["above"], ["is_cell"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["standard"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "network.conv1.weight"], ["stem"], name="node_stem"),
        helper.make_node("Conv", ["maps", weight], ["last"], name="node_last"),
    ]
    stored = [
        numpy_helper.from_array(np.float32(12), "limit"),
        numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float16), "network.conv1.weight"),
        numpy_helper.from_array(np.ones((1, CHANNELS, 1, 1), np.float32), weight),
    ]
    places = SIDE // 16
    inputs = [
        helper.make_tensor_value_info("bright", TensorProto.FLOAT, ["N", 1, SIDE, SIDE]),
        helper.make_tensor_value_info("standard", TensorProto.FLOAT, ["N", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", CHANNELS, places, places]),
    ]
    graph = helper.make_graph(nodes, "small", inputs, [], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def read(
    bright: NDArray[np.float32], maps: NDArray[np.float32], green: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means over nucleus and cytoplasm, N×C; `green` is 0 where it is not given."""
    standard = np.zeros((len(bright), 3, SIDE, SIDE), np.float32)
    if green is not None:
        standard[:, 1] = green
    model = small_graph()
    cell = third_stage_of_the_cell(NodeBuilder(model.graph), model.graph)
    model.graph.output.extend(
        helper.make_tensor_value_info(zone.mean, TensorProto.FLOAT, None)
        for zone in (cell.nucleus, cell.cytoplasm)
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    nucleus, cytoplasm = session.run(None, {"bright": bright, "standard": standard, "maps": maps})
    return nucleus[:, :, 0, 0], cytoplasm[:, :, 0, 0]


def one_cell(rows: int) -> NDArray[np.float32]:
    """Lit in the upper `rows` of three rows of places."""
    bright = np.zeros((1, 1, SIDE, SIDE), np.float32)
    bright[:, :, : 16 * rows] = 200
    return bright


def test_what_lies_beside_the_cell_does_not_matter() -> None:
    maps = DRAWN.random((1, CHANNELS, 3, 3)).astype(np.float32)
    other = maps.copy()
    other[:, :, 2] = 50

    for said, again in zip(read(one_cell(2), maps), read(one_cell(2), other), strict=True):
        assert np.allclose(said, again, atol=0.3)
        assert not np.allclose(said, other.mean(axis=(2, 3)), atol=1)


def test_dark_places_are_the_nucleus_and_light_ones_the_cytoplasm() -> None:
    maps = DRAWN.random((1, CHANNELS, 3, 3)).astype(np.float32)
    green = np.full((1, SIDE, SIDE), 3, np.float32)
    green[:, :16] = -3

    nucleus, cytoplasm = read(one_cell(3), maps, green)

    assert np.allclose(nucleus, maps[:, :, :1].mean(axis=(2, 3)), atol=1e-3)
    assert np.allclose(cytoplasm, maps[:, :, 1:].mean(axis=(2, 3)), atol=1e-3)


def test_a_cell_of_one_shade_is_both_alike() -> None:
    maps = DRAWN.random((1, CHANNELS, 3, 3)).astype(np.float32)

    for said in read(one_cell(3), maps):
        assert np.allclose(said, maps.mean(axis=(2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    "green", [0, 4, -4], ids=["of one shade", "without nucleus", "all nucleus"]
)
def test_a_zone_without_a_pixel_has_a_mean_as_well(green: float) -> None:
    maps = DRAWN.random((1, CHANNELS, 3, 3)).astype(np.float32)
    shade = np.full((1, SIDE, SIDE), green, np.float32)

    for bright in (one_cell(0), one_cell(3)):
        for said in read(bright, maps, shade):
            assert np.allclose(said, maps.mean(axis=(2, 3)), atol=1e-3)


def test_nodes_are_added_to_a_graph_that_has_added_ones() -> None:
    model = small_graph()

    first, second = (
        third_stage_of_the_cell(NodeBuilder(model.graph), model.graph) for _ in range(2)
    )

    assert first.nucleus.mean != second.nucleus.mean
    outputs = [name for node in model.graph.node for name in node.output]
    assert len(outputs) == len(set(outputs))


def test_a_graph_without_the_last_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="no last stage"):
        third_stage(small_graph("network.head.weight").graph)
