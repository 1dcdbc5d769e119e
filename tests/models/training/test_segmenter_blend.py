"""A blend lies between two networks, and its ends are the networks themselves."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the training environment is not installed")
pytest.importorskip("torch", reason="the training environment is not installed")

from models.training.segmenter_blend import blend  # noqa: E402


def network(weight: float):
    helper = onnx.helper
    filters = onnx.numpy_helper.from_array(np.full((1, 1, 1, 1), weight, np.float32), "w")
    bias = onnx.numpy_helper.from_array(np.full(1, -weight, np.float32), "b")
    sides = [1, 1, 2, 2]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", 1, sides)],
        [helper.make_tensor_value_info("y", 1, sides)],
        [filters, bias],
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(("share", "weight"), [(0.0, 1.0), (0.25, 1.5), (1.0, 3.0)])
def test_filters_and_biases_move_by_the_share(share: float, weight: float) -> None:
    mixed = blend(network(1.0), network(3.0), share)

    values = [float(onnx.numpy_helper.to_array(t).ravel()[0]) for t in mixed.graph.initializer]
    assert values == pytest.approx([weight, -weight])


def test_networks_of_other_shapes_are_refused() -> None:
    other = network(1.0)
    other.graph.node.extend([other.graph.node[0]])

    with pytest.raises(ValueError, match="zip"):
        blend(other, network(1.0), 0.5)
