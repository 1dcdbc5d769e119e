"""What is read of the third stage is read of the cell, not of the black around it."""

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
    """Brightness and maps go in; the last stage is one convolution."""
    nodes = [
        helper.make_node("Greater", ["bright", "limit"], ["above"]),
        helper.make_node("Cast", ["above"], ["is_cell"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["maps", weight], ["last"], name="node_last"),
    ]
    stored = [
        numpy_helper.from_array(np.float32(12), "limit"),
        numpy_helper.from_array(np.ones((1, CHANNELS, 1, 1), np.float32), weight),
    ]
    places = SIDE // 16
    inputs = [
        helper.make_tensor_value_info("bright", TensorProto.FLOAT, ["N", 1, SIDE, SIDE]),
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", CHANNELS, places, places]),
    ]
    graph = helper.make_graph(nodes, "small", inputs, [], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def read(
    bright: NDArray[np.float32], maps: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and spread, N×C."""
    model = small_graph()
    cell = third_stage_of_the_cell(NodeBuilder(model.graph), model.graph)
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in (cell.mean, cell.spread)
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    mean, spread = session.run(None, {"bright": bright, "maps": maps})
    return mean[:, :, 0, 0], spread[:, :, 0, 0]


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


def test_of_a_cell_that_fills_the_picture_they_are_plain_mean_and_spread() -> None:
    maps = DRAWN.random((1, CHANNELS, 3, 3)).astype(np.float32)

    mean, spread = read(one_cell(3), maps)

    assert np.allclose(mean, maps.mean(axis=(2, 3)), atol=1e-5)
    assert np.allclose(spread, maps.std(axis=(2, 3)), atol=1e-4)


def test_an_empty_crop_has_a_mean_as_well() -> None:
    maps = DRAWN.random((1, CHANNELS, 3, 3)).astype(np.float32)

    mean, spread = read(one_cell(0), maps)

    assert np.allclose(mean, maps.mean(axis=(2, 3)), atol=1e-5)
    assert np.isfinite(spread).all()


def test_nodes_are_added_to_a_graph_that_has_added_ones() -> None:
    model = small_graph()

    first, second = (
        third_stage_of_the_cell(NodeBuilder(model.graph), model.graph) for _ in range(2)
    )

    assert first.mean != second.mean
    outputs = [name for node in model.graph.node for name in node.output]
    assert len(outputs) == len(set(outputs))


def test_a_graph_without_the_last_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="no last stage"):
        third_stage(small_graph("network.head.weight").graph)
