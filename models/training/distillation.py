"""What several networks say of a crop, for another to learn instead of its label.

Networks that were trained alike but for the seed differ most on patients that none of them saw,
where the mean of their answers errs less than each (Lakshminarayanan et al. 2017,
arXiv:1612.01474). One network can learn that mean (Hinton et al. 2015, arXiv:1503.02531), best
from views that it and its teachers see alike (Beyer et al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from models.training.export import shrinking
from models.training.network import SmearNet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """What the teachers say of N crops, in probabilities."""

    leukemic: Tensor
    """N."""
    cell_type: Tensor
    """N×10."""


class Teachers:
    """Trained networks that answer together; each sees the crops at the side that it learned at."""

    def __init__(self, networks: Sequence[tuple[nn.Module, int]]) -> None:
        self._networks = [(network.eval(), side) for network, side in networks]

    @classmethod
    def load(cls, runs: Sequence[Path], device: str) -> Teachers:
        """From the folders of their runs: `averaged.pt`, and `settings.json` for the side."""
        return cls([_trained(run, device) for run in runs])

    @property
    def side(self) -> int:
        """Pixels across the crops that they ask for, the largest that any of them looks at."""
        return max(side for _, side in self._networks)

    @torch.no_grad()
    def __call__(self, crops: Tensor, *, uses_bfloat16: bool = False) -> Lesson:
        """The mean of their probabilities for crops N×3×S×S, 0 to 255, S at least `side`."""
        said = []
        with torch.autocast(crops.device.type, dtype=torch.bfloat16, enabled=uses_bfloat16):
            for network, side in self._networks:
                said.append(network(shrunk(crops, side)))
        return Lesson(
            leukemic=torch.stack([one.float().sigmoid() for one, _ in said]).mean(dim=0),
            cell_type=torch.stack([one.float().softmax(dim=1) for _, one in said]).mean(dim=0),
        )


def _trained(run: Path, device: str) -> tuple[SmearNet, int]:
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    network = SmearNet()
    network.load_state_dict(torch.load(run / "averaged.pt", map_location="cpu", weights_only=True))
    return network.to(device, memory_format=torch.channels_last), int(settings["side"])


def shrunk(crops: Tensor, side: int) -> Tensor:
    """Crops N×3×S×S averaged by area to N×3×side×side, as the service's graph does it."""
    matrix = shrinking(crops.shape[-1], side)
    if matrix is None:
        return crops
    # In full precision whatever autocast says: a bfloat16 holds pixels to one in 128 only.
    with torch.autocast(crops.device.type, enabled=False):
        weights = torch.from_numpy(matrix).to(crops.device)
        small = weights @ crops.float() @ weights.T
    return small.contiguous(memory_format=torch.channels_last)


def taught_loss(leukemic: Tensor, cell_type: Tensor, lesson: Lesson, type_weight: float) -> Tensor:
    """Cross-entropy of both heads with what the teachers said; every crop weighs the same."""
    binary = nnf.binary_cross_entropy_with_logits(leukemic, lesson.leukemic)
    return binary + type_weight * nnf.cross_entropy(cell_type, lesson.cell_type)
