"""Weights between a packaged network and what training made of it: see `--help`.

Half-way weights often hold on sources never seen what the start knew, and keep most of what was
learned since (Wortsman et al. 2022, arXiv:2109.01903). The statistics of the norms do not average:
they are taken anew on the training's own views.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.training.augment import Jitter
from models.training.data import RandomBatches, load_pack, pack_side
from models.training.network import SmearNet, reset_batch_statistics
from models.training.resume_from_onnx import packaged_weights, unfold

VIEWS = 24
"""Batches for the statistics of the norms; the first of them fit those of the start."""
START_VIEWS = 8
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--graph", type=Path, required=True, help="packaged graph of the start")
    parser.add_argument("--share", type=float, required=True, help="of the start, 0 to 1")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="trained since")
    parser.add_argument("--view", type=int, default=160)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--out", type=Path, required=True, help="averaged.pt to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shrunk = pack_side(options.side, options.view)
    drawn = RandomBatches(
        load_pack(options.pack, parts=["train"], side=shrunk),
        side=options.side,
        size=BATCH,
        seed=options.seed,
        jitter=Jitter(),
    )
    views = [drawn[k].on("cpu").crops for k in range(VIEWS)]
    network = SmearNet()
    unfold(network, packaged_weights(options.graph), views[:START_VIEWS])
    later = [torch.load(path, weights_only=True) for path in options.weights]
    shares = [options.share] + [(1 - options.share) / len(later)] * len(later)
    network.load_state_dict(blended([network.state_dict(), *later], shares))
    reset_batch_statistics(network, views)
    torch.save(network.state_dict(), options.out)


def blended(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The mean of several states of one network, each by its share; counters from the first."""
    return {
        name: torch.stack(
            [share * state[name] for share, state in zip(shares, states, strict=True)]
        ).sum(dim=0)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


if __name__ == "__main__":
    main()
