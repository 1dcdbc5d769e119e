"""ResNet-50 with a leukemic head and a cell-type head, and where its first weights come from.

State-dict names are torchvision's, so that any ImageNet ResNet-50 can be loaded in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.domain import CELL_TYPES

FEATURES = 2048
CROP_PX = 224
"""Side of the crops that leave pipeline.findings.crops."""
MAP_SIDE = 7
"""Side of the activation map that leaves the graph, whatever the input size."""

BACKGROUND_LEVEL = 12
"""Brightest channel at or below this is the black around a cell (JPEG leaves a little noise)."""
DARK_LEVEL = 24
"""Added before the logarithm, so that noise in nearly black nuclei is not blown up."""

SPREAD_FLOOR = 0.08
"""In optical density: a flat, empty crop is not blown up to a texture."""

STAGE_DEPTHS = (3, 4, 6, 3)
ASTRA_BLOCKS = ((0, 1, 2), (0, 1, 2, 7), (0, 1, 2, 3, 4, 35), (0, 1, 2))
"""Blocks of the ResNet-152 that make the ResNet-50 start: first ones, and each stage's last."""


def imagenet_normalised(crops: Tensor) -> Tensor:
    """As the start weights were trained."""
    mean = crops.new_tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    return (crops - mean) / crops.new_tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


def standardised(crops: Tensor) -> Tensor:
    """Optical density of the cell, each channel's mean taken out and one spread set to 1.

    What a stain, a lamp or a publisher's colour correction adds to all of a cell goes; what
    differs within the cell stays. Crops are N×3×S×S, 0 to 255; the black around comes out as 0.
    """
    lit = (crops.amax(dim=1, keepdim=True) > BACKGROUND_LEVEL).to(crops.dtype)
    area = lit.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    density = -torch.log((crops + DARK_LEVEL) / (255 + DARK_LEVEL))
    mean = (density * lit).sum(dim=(2, 3), keepdim=True) / area
    centred = (density - mean) * lit
    variance = (centred * centred).sum(dim=(1, 2, 3), keepdim=True) / (3 * area)
    return -centred / torch.sqrt(variance + SPREAD_FLOOR**2)


class Bottleneck(nn.Module):
    """1×1, 3×3 (carries the stride), 1×1, with a residual connection."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        y = nnf.relu(self.bn1(self.conv1(x)))
        y = nnf.relu(self.bn2(self.conv2(y)))
        return nnf.relu(self.bn3(self.conv3(y)) + kept)


class SmearNet(nn.Module):
    """Masked RGB crops N×3×S×S, 0 to 255, to feature maps, and from these both answers."""

    def __init__(self, dropout: float = 0.2, standardise: bool = True) -> None:
        super().__init__()
        self.normalise = standardised if standardise else imagenet_normalised
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number, depth in enumerate(STAGE_DEPTHS, start=1):
            stage, inputs = _stage(inputs, 64 * 2 ** (number - 1), depth, 1 if number == 1 else 2)
            self.add_module(f"layer{number}", stage)
        self.dropout = nn.Dropout(dropout)
        self.leukemic = nn.Linear(FEATURES, 1)
        self.cell_type = nn.Linear(FEATURES, len(CELL_TYPES))

    def feature_maps(self, x: Tensor) -> Tensor:
        """Normalised crops N×3×S×S to maps N×2048×(S/32)×(S/32), non-negative."""
        x = nnf.relu(self.bn1(self.conv1(x)))
        x = nnf.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Leukemic logit N and cell-type logits N×10."""
        pooled = self.dropout(self.feature_maps(self.normalise(x)).mean(dim=(2, 3)))
        return self.leukemic(pooled).squeeze(1), self.cell_type(pooled)


def _stage(inputs: int, width: int, depth: int, stride: int) -> tuple[nn.Sequential, int]:
    outputs = width * Bottleneck.expansion
    blocks = [Bottleneck(inputs, width, stride)]
    blocks += [Bottleneck(outputs, width, 1) for _ in range(depth - 1)]
    return nn.Sequential(*blocks), outputs


def astra_start(archive: Path) -> dict[str, Tensor]:
    """ResNet-50 weights out of the joined astra archive (an inflated 3-D ResNet-152, MIT).

    The centre slice of each inflated kernel is close to the 2-D kernel it was inflated from.
    """
    tensors = torch.load(archive, map_location="cpu", weights_only=True)["state_dict"]
    start = {name: _flat(value) for name, value in tensors.items() if not name.startswith("layer")}
    for number, blocks in enumerate(ASTRA_BLOCKS, start=1):
        for new, old in enumerate(blocks):
            start |= _renamed_block(tensors, f"layer{number}.{old}.", f"layer{number}.{new}.")
    return start


def _renamed_block(tensors: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {
        new + name.removeprefix(old): _flat(value)
        for name, value in tensors.items()
        if name.startswith(old)
    }


def _flat(value: Tensor) -> Tensor:
    if value.ndim == 5:
        value = value[:, :, value.shape[2] // 2]
    return value.float() if value.is_floating_point() else value


@torch.no_grad()
def reset_batch_statistics(network: nn.Module, batches: list[Tensor]) -> None:
    """Replace every BatchNorm's running statistics by those of our own images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for batch in batches:
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
