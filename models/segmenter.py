"""The network that finds cells: one checked ONNX session that answers maps of a field.

What it is and must agree with stands in `models/segmenter.toml`; a file that differs is refused.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.verified_file import read_checked
from pipeline.errors import Defect
from pipeline.segmentation.network_maps import MAP_COUNT

SEGMENTER_FOLDER = Path(__file__).parent
DESCRIPTION = "segmenter.toml"
INPUT, OUTPUT = "density", "maps"


class OnnxSegmenter:
    """Answers fields; says which file it is."""

    def __init__(self, session: onnxruntime.InferenceSession, sha256: str) -> None:
        self._session = session
        self._sha256 = sha256

    @classmethod
    def load(cls, folder: Path = SEGMENTER_FOLDER, *, threads: int = 1) -> OnnxSegmenter:
        """Open the network that `segmenter.toml` in `folder` names, on the CPU.

        It is small: one thread a field is best, and fields of several workers do not wait for
        each other. Raises Defect (code segmenter_damaged) when a file is missing or differs.
        """
        name, sha256 = _described(folder / DESCRIPTION)
        content = read_checked(
            folder / name, sha256, whose=f"that of {DESCRIPTION}", damaged=_damaged
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # An arena keeps what the largest field ever took, once for each thread.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as err:  # the runtime's errors share no other base
            raise _damaged(f"{name} does not load ({type(err).__name__})") from err
        _check_contract(session)
        return cls(session, sha256)

    @property
    def sha256(self) -> str:
        """Of the model file."""
        return self._sha256

    def answer(self, density: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps, 6 × H × W float32, of a density, 3 × H × W; see `network_maps.Segmenter`."""
        (maps,) = self._session.run([OUTPUT], {INPUT: density[None]})
        return np.asarray(maps[0], dtype=np.float32)


def _described(path: Path) -> tuple[str, str]:
    """File name and sha256 of the network."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))["segmenter"]
        return str(told["file"]), str(told["sha256"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as err:
        raise _damaged(f"{path.name} cannot be read ({type(err).__name__})") from err


def _check_contract(session: onnxruntime.InferenceSession) -> None:
    inputs = [(node.name, node.type, node.shape[1:2]) for node in session.get_inputs()]
    outputs = [(node.name, node.type, node.shape[1:2]) for node in session.get_outputs()]
    if inputs != [(INPUT, "tensor(float)", [3])]:
        raise _damaged(f"the graph's input is {inputs}, not densities of three colours")
    if outputs != [(OUTPUT, "tensor(float)", [MAP_COUNT])]:
        raise _damaged(f"the graph's output is {outputs}, not {MAP_COUNT} maps")


def _damaged(what: str) -> Defect:
    return Defect(
        f"The cell finder cannot be trusted: {what}. Restore models/ from the release.",
        code="segmenter_damaged",
    )
