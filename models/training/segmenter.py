"""Train the segmenter and write its ONNX file with `segmenter.toml`.

`python -m models.training.segmenter --labels runs/labels.pkl --out models --minutes 30`

`--without raabin,draaslan` leaves sources out, to be judged on; the last sixth of the files of each
type is never learned from. `--stains wider` lets colours wander further; `--graph FILE` goes on
from a network that this wrote. docs/adr/0012 has the commands of the packaged network.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from models.segmenter import DESCRIPTION, INPUT, OUTPUT
from models.training.resume_from_onnx import tensors_of, unfold_norms
from models.training.segmenter_labels import Labelled
from models.training.segmenter_samples import STAINS, Sampler
from models.training.split import parted
from models.training.weight_ema import follow
from pipeline.segmentation.network_maps import MAP_COUNT

WIDTHS = (16, 32, 48, 64)
LAST_WIDTH = 24
RARE_LOGIT = -2.0
"""White cells, nuclei and middles are rare: the network begins by saying no."""
BATCH = 8
RATE, DECAY = 2.5e-3, 1e-3
AVERAGE = 0.995
FIRST_BATCHES = 25
"""Of which the norms of a network that goes on take their statistics."""
FILE = "segmenter.onnx"


class Network(nn.Module):
    """A small U-Net on half as many pixels a side as its picture has; 230 000 weights."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.down = nn.ModuleList(
            [_block(3, first), _block(first, second), _block(second, third), _block(third, fourth)]
        )
        # Sees what a 3 × 3 of pixels put together two by two would see, without putting them so.
        self.down[0][0] = nn.Conv2d(3, first, 6, stride=2, padding=2, bias=False)
        self.up = nn.ModuleList(
            [
                _block(fourth + third, third),
                _block(third + second, second),
                _block(second + first, LAST_WIDTH),
            ]
        )
        self.head = nn.Conv2d(LAST_WIDTH, 4 * MAP_COUNT, 1)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.bias.view(MAP_COUNT, 4)[[0, 1, 3]] = RARE_LOGIT

    def forward(self, density: Tensor) -> Tensor:
        """Maps N × 6 × H × W of densities N × 3 × H × W."""
        seen = [self.down[0](density)]
        for block in self.down[1:]:
            seen.append(block(tf.max_pool2d(seen[-1], 2)))
        found = seen.pop()
        for block in self.up:
            found = tf.interpolate(found, scale_factor=2.0, mode="nearest")
            found = block(torch.cat([found, seen.pop()], dim=1))
        return tf.pixel_shuffle(self.head(found), 2)

    def pairs(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Each convolution that has a norm, with that norm, in the order of their work."""
        for block in (*self.down, *self.up):
            yield block[0], block[1]
            yield block[3], block[4]


def _block(taken: int, given: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(taken, given, 3, padding=1, bias=False),
        nn.BatchNorm2d(given),
        nn.ReLU(inplace=True),
        nn.Conv2d(given, given, 3, padding=1, bias=False),
        nn.BatchNorm2d(given),
        nn.ReLU(inplace=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=30.0)
    length.add_argument("--steps", type=int, help="instead of minutes: the same on any machine")
    parser.add_argument("--without", default="", help="sources to leave out, with commas")
    parser.add_argument("--stains", choices=STAINS, default="usual")
    parser.add_argument("--graph", type=Path, help="a network to go on from")
    parser.add_argument("--rate", type=float, default=RATE, help="the highest")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep-every", type=int, help="steps between networks kept on the way")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    left_out = set(options.without.split(","))
    labelled = pickle.loads(options.labels.read_bytes())  # noqa: S301 - written by our own command
    pictures = [p for p in learned_from(labelled) if p.source not in left_out]
    sampler, network = Sampler(pictures, options.seed, STAINS[options.stains]), Network()
    if options.graph:
        batches = [_batch(sampler)[0] for _ in range(FIRST_BATCHES)]
        go_on(network, options.graph, batches)
    begun = time.monotonic()

    def share_done(step: int) -> float:
        if options.steps:
            return step / float(options.steps)
        return (time.monotonic() - begun) / 60 / float(options.minutes)

    def keep(step: int, average: Network) -> None:
        if options.keep_every and step % options.keep_every == 0:
            export(copy.deepcopy(average), options.out / str(step))

    average = train(network, sampler, share_done, rate=options.rate, on_step=keep)
    export(average, options.out)


def learned_from(pictures: Sequence[Labelled]) -> list[Labelled]:
    """All but those held out to judge by (see `held_out`)."""
    return parted(pictures)[0]


@torch.no_grad()
def go_on(network: Network, graph: Path, batches: list[Tensor]) -> None:
    """Fill `network` so that it answers as a file that `export` wrote; its norms fit `batches`."""
    told = onnx.load(graph).graph
    tensors = tensors_of(told)
    filters = [
        (tensors[node.input[1]], tensors[node.input[2]])
        for node in told.node
        if node.op_type == "Conv"
    ]
    *folded, (weight, bias) = filters
    network.head.weight.copy_(weight)
    network.head.bias.copy_(bias)
    pairs = zip(network.pairs(), folded, strict=True)
    unfold_norms(network, [(*pair, *filled) for pair, filled in pairs], batches)
    network.train()


def train(
    network: Network,
    sampler: Sampler,
    share_done: Callable[[int], float],
    *,
    rate: float,
    on_step: Callable[[int, Network], None] = lambda _step, _average: None,
) -> Network:
    """The running average of the weights over the training; `share_done` of the steps so far.

    `on_step` takes the number of steps done and that average.
    """
    average = Network()
    average.load_state_dict(network.state_dict())
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=DECAY)
    began, step = time.monotonic(), 0
    while (done := share_done(step)) < 1:
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 60)
            group["lr"] = rate * warm * (0.5 * (1 + np.cos(np.pi * done)) + 0.01)
        densities, wanted, weights = _batch(sampler)
        # Half the bits, half the time, where the processor has them (AVX-512 or AMX).
        with torch.autocast("cpu", torch.bfloat16):
            said = network(densities.contiguous(memory_format=torch.channels_last))
        value = loss(said.float().contiguous(), wanted, weights)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        follow(average, network, min(AVERAGE, (1 + step) / (10 + step)))
        step += 1
        on_step(step, average)
        if step % 100 == 0:
            print(
                f"step {step}, {time.monotonic() - began:.0f} s, loss {value.item():.3f}",
                flush=True,
            )
    return average


def _batch(sampler: Sampler) -> tuple[Tensor, ...]:
    """Densities, maps wanted and their weights."""
    drawn = zip(*(sampler.draw() for _ in range(BATCH)), strict=True)
    return tuple(torch.from_numpy(np.stack(part)) for part in drawn)


def loss(said: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Yes or no for the first four maps, overlap for cells and nuclei, distance for the ways."""
    unsure = tf.binary_cross_entropy_with_logits(said[:, :4], wanted[:, :4], reduction="none")
    unsure = unsure * weights[:, :4]
    near_middle = 1 + 4 * (wanted[:, 3] > 0.05).float()
    known = (weights[:, :2] > 0).float()
    likely, true = torch.sigmoid(said[:, :2]), wanted[:, :2]
    shared = 2 * (likely * true * known).sum((0, 2, 3)) + 1
    overlap = shared / (((likely + true) * known).sum((0, 2, 3)) + 1)
    away = tf.smooth_l1_loss(said[:, 4:], wanted[:, 4:], reduction="none", beta=0.1)
    ways = (away * weights[:, 4:]).sum() / (weights[:, 4:].sum() + 1)
    plain = 2 * unsure[:, 0].mean() + 2 * unsure[:, 1].mean() + 0.5 * unsure[:, 2].mean()
    return plain + 3 * (unsure[:, 3] * near_middle).mean() + 0.5 * (1 - overlap).sum() + ways


def export(network: Network, folder: Path) -> None:
    """`segmenter.onnx` and its description beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    sides = {2: "height", 3: "width"}
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 128, 160),),
        str(folder / FILE),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: sides, OUTPUT: sides},
        opset_version=17,
        dynamo=False,
    )
    digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    (folder / DESCRIPTION).write_text(description(digest), encoding="utf-8")


def description(sha256: str) -> str:
    """What `models.segmenter` compares the file with."""
    return (
        "# The network that finds cells; models/segmenter.py refuses a file that differs.\n"
        "# Written by models/training/segmenter.py. Research use only.\n\n"
        "[segmenter]\n"
        f'file = "{FILE}"\n'
        f'sha256 = "{sha256}"\n'
    )


if __name__ == "__main__":
    main()
