"""A classifier answers only when everything about its model is as the manifest says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from models.classifier import OnnxClassifier
from pipeline.domain import CELL_TYPES, CellType
from pipeline.errors import Defect
from tests.models.conftest import TINY, manifest_text

TINY_SHA256 = hashlib.sha256(TINY.read_bytes()).hexdigest()


def plain_crops(colors: list[tuple[int, int, int]]) -> np.ndarray:
    """One crop a color, filled with it."""
    crops = np.zeros((len(colors), 224, 224, 3), np.uint8)
    crops[:] = np.array(colors, np.uint8).reshape(-1, 1, 1, 3)
    return crops


@pytest.fixture
def classifier(model_folder: Path) -> OnnxClassifier:
    return OnnxClassifier.load(model_folder, providers=["CPUExecutionProvider"], threads=1)


def test_a_changed_byte_in_the_model_is_refused(model_folder: Path) -> None:
    content = bytearray((model_folder / "tiny.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (model_folder / "tiny.onnx").write_bytes(content)

    with pytest.raises(Defect, match="sha256") as refusal:
        OnnxClassifier.load(model_folder)

    assert refusal.value.code == "model_damaged"


def test_a_file_that_is_no_model_is_refused_even_with_its_true_hash(model_folder: Path) -> None:
    (model_folder / "tiny.onnx").write_bytes(b"no model")
    digest = hashlib.sha256(b"no model").hexdigest()
    (model_folder / "manifest.toml").write_text(manifest_text(sha256=digest))

    with pytest.raises(Defect, match="does not load") as refusal:
        OnnxClassifier.load(model_folder)

    assert refusal.value.code == "model_damaged"


def test_a_missing_model_file_is_refused(model_folder: Path) -> None:
    (model_folder / "tiny.onnx").unlink()

    with pytest.raises(Defect, match=r"tiny\.onnx cannot be read"):
        OnnxClassifier.load(model_folder)


def test_labels_in_another_order_are_refused(model_folder: Path) -> None:
    shuffled = tuple(reversed(CELL_TYPES))
    (model_folder / "manifest.toml").write_text(manifest_text(sha256=TINY_SHA256, labels=shuffled))

    with pytest.raises(Defect, match="labels") as refusal:
        OnnxClassifier.load(model_folder)

    assert refusal.value.code == "model_damaged"


def test_a_precision_that_the_manifest_does_not_name_is_refused(model_folder: Path) -> None:
    with pytest.raises(Defect, match="int8") as refusal:
        OnnxClassifier.load(model_folder, precision="fp64")

    assert refusal.value.code == "model_unknown_precision"


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, 224, 224, 3), np.float32),
        np.zeros((224, 224, 3), np.uint8),
        np.zeros((1, 3, 224, 224), np.uint8),
        np.zeros((1, 128, 128, 3), np.uint8),
    ],
    ids=["float", "no batch", "channels first", "other size"],
)
def test_crops_that_break_the_contract_are_refused(
    classifier: OnnxClassifier, crops: np.ndarray
) -> None:
    with pytest.raises(Defect, match="224") as refusal:
        classifier.classify(crops)

    assert refusal.value.code == "crop_contract"


class SessionOf:
    """Answers what it was given, as a broken accelerator does."""

    def __init__(self, answers: dict[str, np.ndarray]) -> None:
        self._answers = answers

    def run(self, names: list[str], _: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self._answers[name] for name in names]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["NaN", "infinity", "-infinity"])
@pytest.mark.parametrize(
    "output", ["leukemic_probability", "cell_type", "activation_map", "novelty"]
)
def test_an_answer_that_is_no_number_is_refused(
    classifier: OnnxClassifier, output: str, value: float
) -> None:
    sound = {
        "leukemic_probability": np.full(3, 0.5, np.float32),
        "cell_type": np.full((3, len(CELL_TYPES)), 1 / len(CELL_TYPES), np.float32),
        "activation_map": np.zeros((3, 7, 7), np.float32),
        "novelty": np.ones(3, np.float32),
    }
    crops = plain_crops([(0, 0, 0)] * 3)

    def over(answers: dict[str, np.ndarray]) -> OnnxClassifier:
        session: Any = SessionOf(answers)
        return OnnxClassifier(session, classifier.identity, classifier.policy)

    broken = {name: values.copy() for name, values in sound.items()}
    broken[output].flat[-1] = value

    assert len(over(sound).classify(crops)) == 3
    with pytest.raises(Defect, match=output) as refusal:
        over(broken).classify(crops)
    assert refusal.value.code == "model_answer_not_finite"


def test_no_crops_give_no_predictions(classifier: OnnxClassifier) -> None:
    assert classifier.classify(np.zeros((0, 224, 224, 3), np.uint8)) == []


@pytest.mark.parametrize("count", [1, 8, 9, 19])
def test_every_crop_is_answered_in_order(classifier: OnnxClassifier, count: int) -> None:
    reds = [10 * index for index in range(count)]

    predictions = classifier.classify(plain_crops([(red, 0, 0) for red in reds]))

    assert [said.leukemic_probability for said in predictions] == pytest.approx(
        [red / 255 for red in reds], abs=1e-3
    )


def test_a_prediction_has_the_promised_parts(classifier: OnnxClassifier) -> None:
    (said,) = classifier.classify(plain_crops([(0, 0, 255)]))

    assert CELL_TYPES[int(np.argmax(said.type_probabilities))] is CellType.LYMPHOCYTE
    assert sum(said.type_probabilities) == pytest.approx(1, abs=1e-5)
    assert said.activation_map.shape == (7, 7)
    assert said.activation_map.dtype == np.float32
    assert said.novelty == pytest.approx(1, abs=1e-3)


def test_the_identity_names_what_really_ran(model_folder: Path) -> None:
    """Asked for an accelerator that is not there, the runtime falls back; we say so."""
    classifier = OnnxClassifier.load(model_folder)

    session = onnxruntime.InferenceSession(
        TINY.read_bytes(), providers=onnxruntime.get_available_providers()
    )
    assert classifier.identity.execution_provider == session.get_providers()[0]
    assert classifier.identity.sha256 == TINY_SHA256
    assert (classifier.identity.name, classifier.identity.version) == ("tiny", "1.0.0")


def test_the_policy_is_the_manifests(classifier: OnnxClassifier) -> None:
    policy = classifier.policy

    assert (policy.refer_above, policy.leukemic_from, policy.novelty_limit) == (0.4, 0.6, 0.5)
