"""Go on from a packaged network: its folded graph turned back into a network that can learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from models.training.network import Bottleneck, SmearNet

FILTER_SPREAD = 0.5
"""Root mean square of a filter times the root of its inputs, near that of the first weights.

A filter before a norm may have any length; Adam's steps do not grow with it, so it sets the rate.
"""
MOST_STRETCH = 100.0
"""A dead filter is not stretched to life."""

Folded = tuple[nn.Conv2d, nn.BatchNorm2d, Tensor, Tensor]
"""A convolution with its norm, and the weight and bias that do the work of both."""


def packaged_weights(graph: Path) -> dict[str, Tensor]:
    """Convolutions, their biases and both heads of a graph that export.py wrote, as float32."""
    return {
        name.removeprefix("network."): tensor.float()
        for name, tensor in tensors_of(onnx.load(graph).graph).items()
        if name.endswith((".weight", ".bias"))
    }


def tensors_of(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """What is stored in a graph, by name."""
    return {
        one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer
    }


@torch.no_grad()
def unfold(network: SmearNet, weights: dict[str, Tensor], batches: list[Tensor]) -> None:
    """Fill `network` so that it answers as the folded graph does and its norms fit `batches`."""
    for name in ("leukemic", "cell_type"):
        head = getattr(network, name)
        stored = weights.get(f"{name}.weight")
        if stored is None or stored.shape != head.weight.shape:
            continue  # attach_heads.py put other heads in its place: it begins anew
        head.weight.copy_(weights[f"{name}.weight"])
        head.bias.copy_(weights[f"{name}.bias"])
    folded = [
        (conv, norm, weights[f"{name}.weight"], weights[f"{name}.bias"])
        for name, conv, norm in _folded_pairs(network)
    ]
    unfold_norms(network, folded, batches)


@torch.no_grad()
def unfold_norms(network: nn.Module, folded: Iterable[Folded], batches: list[Tensor]) -> None:
    """Fill convolutions and norms from what was folded.

    Each norm first does what the folded bias did; then the statistics of our own crops become
    its running ones, and its gain and offset take up the difference.
    """
    norms = [(norm, _fill(conv, norm, weight, bias)) for conv, norm, weight, bias in folded]
    sums = {norm: _Sums(norm) for norm, _ in norms}
    network.eval()
    for batch in batches:
        network(batch)
    for norm, gain in norms:
        mean, variance = sums[norm].finish()
        norm.weight.copy_(gain * torch.sqrt(variance + norm.eps))
        norm.bias.add_(gain * mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _folded_pairs(network: SmearNet) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution that export.py folds, by its name in the graph, with its norm."""
    yield "conv1", network.conv1, network.bn1
    for name, block in network.named_modules():
        if isinstance(block, Bottleneck):
            for number in (1, 2, 3):
                conv, norm = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
                yield f"{name}.conv{number}", conv, norm
            if block.downsample is not None:
                yield f"{name}.downsample", block.downsample[0], block.downsample[1]


def _fill(conv: nn.Conv2d, norm: nn.BatchNorm2d, weight: Tensor, bias: Tensor) -> Tensor:
    """Give the filters their length, and the norm what undoes it; returns its gain."""
    fan_in = weight[0].numel()
    spread = weight.flatten(1).pow(2).mean(1).sqrt()
    stretch = (FILTER_SPREAD / fan_in**0.5 / spread.clamp(min=1e-12)).clamp(max=MOST_STRETCH)
    conv.weight.copy_(weight * stretch.view(-1, 1, 1, 1))
    gain = 1 / stretch
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.copy_(gain)
    norm.bias.copy_(bias)
    return gain


class _Sums:
    """Sums of what enters a norm, per channel."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.count = 0
        self.sum = torch.zeros_like(norm.running_mean, dtype=torch.float64)
        self.squares = torch.zeros_like(self.sum)
        self._hook = norm.register_forward_pre_hook(self._add)

    def _add(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double()
        self.count += values.numel() // values.shape[1]
        self.sum += values.sum(dim=(0, 2, 3))
        self.squares += values.pow(2).sum(dim=(0, 2, 3))

    def finish(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, float32; hears no more."""
        self._hook.remove()
        mean = self.sum / self.count
        variance = (self.squares / self.count - mean.pow(2)).clamp(min=0)
        return mean.float(), variance.float()
