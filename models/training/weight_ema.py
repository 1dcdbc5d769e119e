"""The moving average of a network's weights over its training, which is what is kept of it."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, momentum: float) -> None:
    """Keep `momentum`, 0 to 1, of each weight and statistic, the rest from `network`.

    Counters are copied.
    """
    pairs = list(zip(averaged.state_dict().values(), network.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(momentum)([kept for kept, _ in moving], [new for _, new in moving], 0)
    for kept, new in pairs:
        if not kept.is_floating_point():
            kept.copy_(new)
