"""Writes `tiny.onnx`, a model of a kilobyte with the real contract: run it where `onnx` is.

Probability is the mean of red, novelty the mean of blue (both 0 to 1), the activation map the
green of each 32×32 square, and the cell type leans on the brightest channel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CELL_TYPES = 13


def main() -> None:
    path = Path(__file__).with_name("tiny.onnx")
    onnx.save(tiny_model(), str(path))
    print(path, path.stat().st_size)


def tiny_model() -> onnx.ModelProto:
    """The graph, opset 20."""
    spread = np.zeros((3, CELL_TYPES), np.float32)
    spread[0, 8] = spread[1, 0] = spread[2, 4] = 4.0
    constants = {
        "full": np.float32(255.0),
        "places": np.array([1, 2], np.int64),
        "red": np.int64(0),
        "green": np.array([0, 1, 0], np.float32).reshape(1, 3, 1, 1),
        "blue": np.int64(2),
        "spread": spread,
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["crops"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "full"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "places"], ["color"], keepdims=0),
        helper.make_node("Gather", ["color", "red"], ["leukemic_probability"], axis=1),
        helper.make_node("Gather", ["color", "blue"], ["novelty"], axis=1),
        helper.make_node("MatMul", ["color", "spread"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["cell_type"], axis=1),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "green"], ["greens"]),
        helper.make_node(
            "AveragePool", ["greens"], ["squares"], kernel_shape=[32, 32], strides=[32, 32]
        ),
        helper.make_node("Squeeze", ["squares", "one"], ["activation_map"]),
    ]
    outputs = {
        "leukemic_probability": ["batch"],
        "cell_type": ["batch", CELL_TYPES],
        "activation_map": ["batch", 7, 7],
        "novelty": ["batch"],
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["batch", 224, 224, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    main()
