"""Write the service's ONNX graphs, at 32 and 16 bits: `python -m models.training.export --help`.

The graph takes uint8 crops N×224×224×3 RGB and holds everything after that: centre, stain
standardisation, network, calibration, activation map and novelty.
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.training.calibrate import Calibration, read_calibration
from models.training.network import CROP_PX, MAP_SIDE, Bottleneck, SmearNet

OPSET = 20
STRIDE = 32
"""Pixels of the network's input between two places of its last map."""
OUTPUTS = ["leukemic_probability", "cell_type", "activation_map", "novelty"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="averaged.pt of a run")
    parser.add_argument("--calibration", type=Path, required=True, help="calibration.npz of a run")
    parser.add_argument("--view", type=int, default=160)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--out", type=Path, required=True, help="folder for the .onnx files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    network = SmearNet()
    network.load_state_dict(torch.load(options.weights, weights_only=True))
    calibration = read_calibration(options.calibration)
    for name, precision in (("fp32", torch.float32), ("fp16", torch.float16)):
        graph = ServiceGraph(network, calibration, options.view, options.side, precision)
        export(graph, options.out / f"smearnet-{name}.onnx")


class ServiceGraph(nn.Module):
    """From uint8 crops to the four answers of the service."""

    def __init__(
        self,
        network: SmearNet,
        calibration: Calibration,
        view_px: int,
        side_px: int,
        precision: torch.dtype,
    ) -> None:
        super().__init__()
        self.network = fold_norms(copy.deepcopy(network).eval())
        self.trunk_precision = precision
        _trunk_to(self.network, precision)
        self.margin = (CROP_PX - view_px) // 2
        self.cells_across = view_px * MAP_SIDE // CROP_PX
        self.slope = calibration.slope
        self.intercept = calibration.intercept
        self.temperature = calibration.temperature
        shrink = shrinking(view_px, side_px)
        self.register_buffer("shrink", None if shrink is None else torch.from_numpy(shrink))
        self.register_buffer("places", torch.from_numpy(places(side_px, self.cells_across)))
        self.register_buffer("projection", torch.from_numpy(calibration.projection))
        self.register_buffer("centroids", torch.from_numpy(calibration.centroids))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        maps = self.network.feature_maps(self._normalised(crops).to(self.trunk_precision)).float()
        pooled = maps.mean(dim=(2, 3))
        leukemic = self.network.leukemic(pooled).squeeze(1)
        probability = torch.sigmoid(self.slope * leukemic + self.intercept)
        types = torch.softmax(self.network.cell_type(pooled) / self.temperature, dim=1)
        return probability, types, self._activation(maps), self._novelty(pooled)

    def _normalised(self, crops: Tensor) -> Tensor:
        """The centre of each crop, standardised, N×3×side×side."""
        inside = slice(self.margin, CROP_PX - self.margin)
        view = crops[:, inside, inside, :].permute(0, 3, 1, 2).float()
        if self.shrink is not None:
            view = self.shrink @ view @ self.shrink.T
        return self.network.normalise(view)

    def _activation(self, maps: Tensor) -> Tensor:
        """What each place adds to the leukemic logit, negatives cut, on the whole crop's 7×7."""
        added = torch.einsum("nchw,c->nhw", maps, self.network.leukemic.weight[0])
        added = self.places @ nnf.relu(added) @ self.places.T
        ring = (MAP_SIDE - self.cells_across) // 2
        return nnf.pad(added, (ring, ring, ring, ring))

    def _novelty(self, pooled: Tensor) -> Tensor:
        """Mahalanobis distance to the nearest class centre, in the subspace of calibrate.py."""
        place = (pooled @ self.projection).unsqueeze(1)
        return torch.sqrt(((place - self.centroids.unsqueeze(0)) ** 2).sum(dim=2).amin(dim=1))


def shrinking(view_px: int, side_px: int) -> NDArray[np.float32] | None:
    """Side × view matrix that averages pixels by area, as the training's crops are shrunk.

    Picking pixels instead, as interpolation without a filter does, would show the network a
    grain that it never saw. None where nothing is to be shrunk.
    """
    if view_px == side_px:
        return None
    edges = np.linspace(0, view_px, side_px + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(view_px)[None]
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True), dtype=np.float32)


def places(side_px: int, across: int, stride: int = STRIDE) -> NDArray[np.float32]:
    """Across × map matrix that reads a map of the network in the middles of `across` equal cells.

    Every stride of the trunk keeps the pixel at its left and upper edge, so that place k of the
    map looks at pixel 32·k, not at the middle of the k-th piece of 32 (the padding of 1 before a
    3×3 kernel of stride 2). Taking it for the middle would move the heat right and down by half
    a piece. Beyond the last place there is none: what lies nearer to the right and lower edge
    than that place gets its share of it, as if the next were 0.
    """
    count = math.ceil(side_px / stride)
    middles = (np.arange(across) + 0.5) * side_px / across - 0.5
    wanted = np.maximum(middles / stride, 0)[:, None]
    return np.clip(1 - np.abs(wanted - np.arange(count)), 0, None).astype(np.float32)


def fold_norms(network: SmearNet) -> SmearNet:
    """Every BatchNorm folded into the convolution before it."""
    network.conv1, network.bn1 = fuse_conv_bn_eval(network.conv1, network.bn1), nn.Identity()
    for block in network.modules():
        if not isinstance(block, Bottleneck):
            continue
        for number in (1, 2, 3):
            conv, norm = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
            setattr(block, f"conv{number}", fuse_conv_bn_eval(conv, norm))
            setattr(block, f"bn{number}", nn.Identity())
        if block.downsample is not None:
            block.downsample = fuse_conv_bn_eval(block.downsample[0], block.downsample[1])
    return network


def _trunk_to(network: SmearNet, precision: torch.dtype) -> None:
    """The convolutions at `precision`; both heads stay at 32 bits."""
    for name, child in network.named_children():
        if name not in ("leukemic", "cell_type"):
            child.to(precision)


def export(graph: ServiceGraph, path: Path) -> None:
    """One file, dynamic batch."""
    graph.eval()
    crops = torch.zeros((2, CROP_PX, CROP_PX, 3), dtype=torch.uint8)
    torch.onnx.export(
        graph,
        (crops,),
        str(path),
        input_names=["crops"],
        output_names=OUTPUTS,
        dynamic_shapes={"crops": {0: torch.export.Dim("batch", min=1, max=4096)}},
        opset_version=OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )


if __name__ == "__main__":
    main()
