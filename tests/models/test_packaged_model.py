"""The model that comes with smearlink is the one that its manifest, card and training name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from listener.demo.phantom import Recipe, draw_field
from listener.demo.phantom.field import BLASTS, HEALTHY_CELLS
from models.calibrated_classifier import calibrated
from models.classifier import MODEL_FOLDER, OnnxClassifier
from models.evaluation.cells import cut_row
from models.evaluation.metrics import area_under_roc
from models.evaluation.pack import read_pack
from models.manifest import read_manifest
from models.segmenter import OnnxSegmenter
from pipeline.domain import SOPInstanceUID, SourceImage
from pipeline.findings.crops import cut_crops
from pipeline.segmentation.find_cells import find_cells

REFERENCE = Path(__file__).with_name("fp32_answers.csv")
MANIFEST = read_manifest(MODEL_FOLDER / "manifest.toml")


@pytest.mark.parametrize("precision", sorted(MANIFEST.files))
def test_every_file_of_the_manifest_loads(precision: str) -> None:
    classifier = OnnxClassifier.load(precision=precision, providers=["CPUExecutionProvider"])

    (said,) = classifier.classify(np.zeros((1, 224, 224, 3), np.uint8))

    assert classifier.identity.execution_provider == "CPUExecutionProvider"
    assert 0 <= said.leukemic_probability <= 1
    assert sum(said.type_probabilities) == pytest.approx(1, abs=1e-3)
    assert np.isfinite(said.activation_map).all()


def test_the_card_names_this_model() -> None:
    card = (MODEL_FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")

    assert f"smearnet {MANIFEST.version}" in card
    for file in MANIFEST.files.values():
        assert file.sha256[:12] in card


def test_its_types_can_be_composed_again_for_another_probability() -> None:
    """A site calibration relies on how this graph composes types from the probability."""
    drawn = draw_field(3, Recipe(white_cells=(*HEALTHY_CELLS[2:8], *BLASTS)))
    image = SourceImage(
        sop_instance_uid=SOPInstanceUID("1.2"), frame=1, pixels=drawn.pixels, spacing_um=0.1
    )
    found = find_cells(image)
    crops = cut_crops(image, found.cells, found.scale)
    blended = (crops // 2 + crops[::-1] // 2).astype(np.uint8)
    classifier = OnnxClassifier.load(providers=["CPUExecutionProvider"], threads=1)

    for said in classifier.classify(np.concatenate([crops, blended])):
        types = np.array(said.type_probabilities)
        there = calibrated(said, 1.3, 1.5)
        back = calibrated(there, 1 / 1.3, -1.5 / 1.3)
        assert np.array(calibrated(said, 1.0, 0.0).type_probabilities) == pytest.approx(
            types, abs=1e-6
        )
        assert np.array(back.type_probabilities) == pytest.approx(types, abs=5e-3)


@pytest.mark.parametrize(
    ("precision", "closeness", "flips"), [("int8", 0.2, 0.03), ("fp16", 0.02, 0.01)]
)
def test_it_says_what_the_32_bit_model_said(
    data_dir: Path, precision: str, closeness: float, flips: float
) -> None:
    """On the 168 cells of C-NMC's validation patients, of which many lie near one half.

    Over all held-out cells 99 % of the calls are the same; `models.training.compare` counts them.
    """
    with REFERENCE.open(newline="", encoding="utf-8") as stream:
        exact = {
            line["file"]: float(line["leukemic_probability"]) for line in csv.DictReader(stream)
        }
    rows = [row for row in read_pack(data_dir, None) if row.file in exact]
    crops = np.stack([one.crop for row in rows for one in cut_row(row)])
    # One thread: a second one would mostly wait for the first, and burn the core of another test.
    classifier = OnnxClassifier.load(
        precision=precision, providers=["CPUExecutionProvider"], threads=1
    )

    said = np.array([one.leukemic_probability for one in classifier.classify(crops)])

    wanted = np.array([exact[row.file] for row in rows])
    truths = np.array([row.label == "leukemic" for row in rows])
    ranked, ranked_exactly = (area_under_roc(truths, scores) for scores in (said, wanted))
    assert len(rows) == len(exact) > 100
    assert np.abs(said - wanted).max() <= closeness
    flipped = (said >= 0.5) != (wanted >= 0.5)
    assert flipped.mean() <= flips
    # A call that flips is one that the service refers, whichever file it uses.
    assert MANIFEST.policy.refer_above <= wanted[flipped].min(initial=0.5)
    assert wanted[flipped].max(initial=0.5) < MANIFEST.policy.leukemic_from
    assert ranked is not None
    assert ranked_exactly is not None
    assert abs(ranked - ranked_exactly) <= 0.005


def test_the_heat_of_a_mirrored_cell_is_mirrored(data_dir: Path) -> None:
    """A map laid beside the cell leans to one side whatever the cell shows."""
    classifier = OnnxClassifier.load(providers=["CPUExecutionProvider"], threads=1)
    segmenter = OnnxSegmenter.load()
    rows = [row for row in read_pack(data_dir, None) if row.source == "allidb1"]
    images = [row.read_image() for row in rows if row.label == "leukemic"][:4]
    fields = [(image, find_cells(image, segmenter)) for image in images]
    crops = np.concatenate([cut_crops(image, seen.cells, seen.scale) for image, seen in fields])

    plain, mirrored = (
        np.sum([one.activation_map for one in classifier.classify(np.ascontiguousarray(seen))], 0)
        for seen in (crops, crops[:, :, ::-1])
    )

    lean = [float((h.sum(axis=0) * np.arange(-3, 4)).sum() / h.sum()) for h in (plain, mirrored)]
    assert len(crops) > 50
    assert abs(sum(lean)) < 0.3
