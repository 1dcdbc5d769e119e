"""The network in service: one checked ONNX session that answers crops in small batches.

Everything that the session needs is in `models/manifest.toml`; loading compares the files and
the graph with it and refuses what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.manifest import Manifest, ModelFile, read_manifest
from models.verified_file import read_checked
from pipeline.domain import CELL_TYPES, DecisionPolicy, ModelIdentity, Prediction
from pipeline.errors import Defect

MODEL_FOLDER = Path(__file__).parent
CROP_SHAPE = (224, 224, 3)
MAP_SHAPE = (7, 7)
BATCH = 8
"""Chunks of 8 are as fast as 32 on a CPU, with half the memory."""

INPUT = "crops"
OUTPUTS = ("leukemic_probability", "cell_type", "activation_map", "novelty")

CPU = "CPUExecutionProvider"
ACCELERATORS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CoreMLExecutionProvider")
"""Tried before the CPU, in this order, where the installed runtime has them."""


class OnnxClassifier:
    """Answers crops; says truly which network it is and on what it runs."""

    def __init__(
        self, session: onnxruntime.InferenceSession, identity: ModelIdentity, policy: DecisionPolicy
    ) -> None:
        self._session = session
        self._identity = identity
        self._policy = policy

    @classmethod
    def load(
        cls,
        folder: Path = MODEL_FOLDER,
        *,
        precision: str = "auto",
        providers: Sequence[str] | None = None,
        threads: int = 0,
    ) -> OnnxClassifier:
        """Open the model that the manifest in `folder` names.

        `precision` is a name in the manifest ("int8", "fp16") or "auto": the 16-bit file where an
        accelerator answers, else the 8-bit one. `threads` 0 leaves the number to the runtime.
        Raises Defect (code model_damaged) when a file, the graph or the labels differ from the
        manifest, and Defect (code model_unknown_precision) when the manifest has no such file.
        """
        manifest = read_manifest(folder / "manifest.toml")
        wanted = tuple(providers) if providers else _available_providers()
        model_file = _named_file(manifest, "int8" if precision == "auto" else precision)
        session = _open_session(folder, model_file, wanted, threads)
        if precision == "auto" and session.get_providers()[0] != CPU and "fp16" in manifest.files:
            model_file = manifest.files["fp16"]
            session = _open_session(folder, model_file, wanted, threads)
        _check_contract(session, manifest)
        identity = ModelIdentity(
            name=manifest.name,
            version=manifest.version,
            sha256=model_file.sha256,
            execution_provider=session.get_providers()[0],
        )
        return cls(session, identity, manifest.policy)

    @property
    def identity(self) -> ModelIdentity:
        """Name, version, hash and execution provider."""
        return self._identity

    @property
    def policy(self) -> DecisionPolicy:
        """Limits of the manifest."""
        return self._policy

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        """One prediction a crop, in order; crops are N×224×224×3 uint8 RGB, N may be 0.

        Raises Defect (code crop_contract) for any other shape or type, and Defect (code
        model_answer_not_finite) when the network answers NaN or infinity.
        """
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != CROP_SHAPE:
            raise Defect(
                f"Crops must be N×224×224×3 uint8 RGB; got {crops.dtype} of shape {crops.shape}. "
                "Cut them with pipeline.findings.crops.",
                code="crop_contract",
            )
        chunks = (crops[first : first + BATCH] for first in range(0, len(crops), BATCH))
        return [prediction for chunk in chunks for prediction in self._answer(chunk)]

    def _answer(self, crops: NDArray[np.uint8]) -> Iterator[Prediction]:
        answers = self._session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(crops)})
        self._check_finite(answers)
        for probability, types, activation, novelty in zip(*answers, strict=True):
            yield Prediction(
                leukemic_probability=float(probability),
                type_probabilities=tuple(float(share) for share in types),
                activation_map=activation,
                novelty=float(novelty),
            )

    def _check_finite(self, answers: Sequence[NDArray[np.float32]]) -> None:
        """JSON, FHIR and DICOM have no word for NaN or infinity, and nothing follows from them."""
        broken = [
            name
            for name, values in zip(OUTPUTS, answers, strict=True)
            if not np.isfinite(values).all()
        ]
        if broken:
            raise Defect(
                f"The network answered NaN or infinity ({', '.join(broken)}) on "
                f"{self._identity.execution_provider}; no cell of this field is called. "
                "Try model.precision int8 on the CPU, and report it with the field's image.",
                code="model_answer_not_finite",
            )


def _available_providers() -> tuple[str, ...]:
    installed = onnxruntime.get_available_providers()
    return (*(name for name in ACCELERATORS if name in installed), CPU)


def _named_file(manifest: Manifest, precision: str) -> ModelFile:
    if precision not in manifest.files:
        raise Defect(
            f"The manifest has no {precision!r} model, only {sorted(manifest.files)}. "
            "Set model.precision to one of these or to 'auto'.",
            code="model_unknown_precision",
        )
    return manifest.files[precision]


def _open_session(
    folder: Path, model_file: ModelFile, providers: Sequence[str], threads: int
) -> onnxruntime.InferenceSession:
    """A session on the first provider that really works; asked for too much, it falls back."""
    content = read_checked(
        folder / model_file.name, model_file.sha256, whose="the manifest's", damaged=_damaged
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # An arena keeps what the largest field ever took, once for each thread.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    # The session's own level comes too late for an accelerator that fails to load, as it does on
    # every machine without one; which provider runs is told by the session, not by its log.
    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=list(providers))
    except Exception as err:  # the runtime's errors share no other base
        raise Defect(
            f"{model_file.name} has the right hash but does not load: {type(err).__name__}. "
            "Check the version of onnxruntime against the lock file.",
            code="model_damaged",
        ) from err
    if session.get_providers() == [CPU]:
        # Kept to go on with another provider where one fails; there is no other.
        session.disable_fallback()
        session._model_bytes = b""
    return session


def _check_contract(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """The graph takes and gives what the manifest and this code expect."""
    if manifest.labels != tuple(kind.value for kind in CELL_TYPES):
        raise _damaged("the manifest's labels are not the cell types of this version, in order")
    inputs = [(node.name, node.type, tuple(node.shape[1:])) for node in session.get_inputs()]
    if inputs != [(INPUT, "tensor(uint8)", CROP_SHAPE)]:
        raise _damaged(f"the graph's input is {inputs}, not uint8 crops N×224×224×3")
    outputs = {node.name: tuple(node.shape[1:]) for node in session.get_outputs()}
    expected = {
        OUTPUTS[0]: (),
        OUTPUTS[1]: (len(CELL_TYPES),),
        OUTPUTS[2]: MAP_SHAPE,
        OUTPUTS[3]: (),
    }
    if outputs != expected:
        raise _damaged(f"the graph's outputs are {outputs}, not {expected}")


def _damaged(what: str) -> Defect:
    return Defect(
        f"The model cannot be trusted: {what}. Restore models/ from the release.",
        code="model_damaged",
    )
