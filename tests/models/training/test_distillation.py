"""What several networks teach another; needs the training environment."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training environment is not installed")
pytest.importorskip("onnx", reason="the training environment is not installed")

from models.training.distillation import Lesson, Teachers, shrunk, taught_loss  # noqa: E402
from models.training.network import SmearNet  # noqa: E402


class Said(torch.nn.Module):
    """Says the same of every crop, and keeps the side of what it was shown."""

    def __init__(self, leukemic: float, cell_type: list[float]) -> None:
        super().__init__()
        self.leukemic, self.cell_type = leukemic, torch.tensor(cell_type)
        self.shown = 0

    def forward(self, crops):
        self.shown = crops.shape[-1]
        return torch.full((len(crops),), self.leukemic), self.cell_type.expand(len(crops), -1)


def test_teachers_answer_with_the_mean_of_their_probabilities():
    one, other = Said(2.0, [0.0, 0.0]), Said(-1.0, [5.0, 0.0])

    lesson = Teachers([(one, 64), (other, 64)])(torch.zeros(3, 3, 64, 64))

    chances = torch.sigmoid(torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(lesson.leukemic, chances.mean().expand(3))
    first = (0.5 + torch.sigmoid(torch.tensor(5.0))) / 2
    torch.testing.assert_close(lesson.cell_type[0], torch.stack([first, 1 - first]))


def test_each_teacher_sees_the_side_that_it_learned_at():
    small, large = Said(0.0, [0.0]), Said(0.0, [0.0])
    teachers = Teachers([(small, 64), (large, 96)])

    teachers(torch.zeros(1, 3, teachers.side, teachers.side))

    assert (small.shown, large.shown, teachers.side) == (64, 96, 96)


def test_crops_are_shrunk_as_the_pack_shrinks_them():
    crops = np.random.default_rng(6).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)

    ours = shrunk(torch.from_numpy(crops).permute(0, 3, 1, 2).float(), 144)

    wanted = [
        cv2.resize(c.astype(np.float32), (144, 144), interpolation=cv2.INTER_AREA) for c in crops
    ]
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1), np.stack(wanted), atol=1e-3)


def test_nothing_teaches_less_than_saying_what_the_teachers_say():
    lesson = Lesson(
        leukemic=torch.tensor([0.3, 0.9]), cell_type=torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    )
    agreed = torch.logit(lesson.leukemic).requires_grad_(), lesson.cell_type.log().requires_grad_()

    taught_loss(*agreed, lesson, 0.5).backward()

    for answer in agreed:
        torch.testing.assert_close(answer.grad, torch.zeros_like(answer), atol=1e-6, rtol=0)


def test_a_run_is_loaded_with_its_side(tmp_path: Path):
    torch.manual_seed(1)
    network = SmearNet()
    torch.save(network.state_dict(), tmp_path / "averaged.pt")
    (tmp_path / "settings.json").write_text(json.dumps({"side": 64}))
    crops = torch.rand(2, 3, 64, 64) * 255

    teachers = Teachers.load([tmp_path], "cpu")

    assert teachers.side == 64
    with torch.no_grad():
        leukemic, _ = network.eval()(crops)
    torch.testing.assert_close(teachers(crops).leukemic, torch.sigmoid(leukemic))
