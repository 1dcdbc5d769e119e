"""Train the network on packed crops: `python -m models.training.train --help`.

A run writes `settings.json`, `curve.csv`, `last.pt` (resumable) and `averaged.pt` (the weights
to use: an exponential moving average) to its folder.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor, nn

from models.evaluation.metrics import area_under_roc
from models.training.augment import Jitter
from models.training.data import (
    UNKNOWN,
    Batch,
    CropPack,
    CropRow,
    RandomBatches,
    drawn_ahead,
    load_pack,
    pack_side,
    plain_batches,
    without_subjects,
)
from models.training.distillation import Lesson, Teachers, shrunk, taught_loss
from models.training.network import SmearNet, astra_start, reset_batch_statistics
from models.training.resume_from_onnx import packaged_weights, unfold
from models.training.weight_ema import follow

LEUKEMIC_SMOOTHING = 0.05
TYPE_SMOOTHING = 0.05
TYPE_LOSS_WEIGHT = 0.5
WEIGHT_DECAY = 0.02
FIRST_VIEWS = 8
"""Batches whose statistics the norms of a new start take."""


def main() -> None:
    options = _parser().parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    options.run.mkdir(parents=True, exist_ok=True)
    jitter = replace(Jitter(), **dict(options.jitter))
    settings = vars(options) | {"jitter": asdict(jitter)}
    (options.run / "settings.json").write_text(json.dumps(settings, default=str, indent=1))
    teachers = Teachers.load(options.teachers, options.device) if options.teachers else None
    drawn_side = max(options.side, teachers.side) if teachers else options.side
    side = pack_side(drawn_side, options.view)
    learned = load_pack(options.pack, parts=options.parts, side=side)
    judged = {"": load_pack(options.pack, parts=["val"], side=side)}
    if options.leave_out:
        learned, judged["left_out_"] = without_subjects(learned, options.leave_out)
    batches = RandomBatches(
        learned,
        side=drawn_side,
        size=options.batch,
        seed=options.seed,
        jitter=jitter,
    )
    network, averaged, optimiser, first_step = _start(options, batches)
    _train(options, network, averaged, optimiser, batches, judged, first_step, teachers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--run", type=Path, required=True, help="folder for this run's files")
    parser.add_argument("--astra", type=Path, help="joined astra archive to start from")
    parser.add_argument("--weights", type=Path, help="averaged.pt of an earlier run to start from")
    parser.add_argument("--graph", type=Path, help="packaged fp16 or fp32 graph to go on from")
    parser.add_argument(
        "--teachers", type=Path, nargs="*", default=[], help="runs to learn from instead of labels"
    )
    parser.add_argument("--frozen", nargs="*", default=[], help="parts that keep their weights")
    parser.add_argument("--parts", nargs="+", default=["train"], help="parts of the pack to fit")
    parser.add_argument("--view", type=int, default=160, help="central pixels of a 224 px crop")
    parser.add_argument("--side", type=int, default=128, help="pixels that the view is shrunk to")
    parser.add_argument("--imagenet", action="store_true")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--cooldown", type=int, default=0, help="last steps, rate falling to 0")
    parser.add_argument("--momentum", type=float, default=0.99, help="of the moving average")
    parser.add_argument("--judge-every", type=int, default=200)
    parser.add_argument("--jitter", nargs="*", type=_named, default=[], metavar="NAME=VALUE")
    parser.add_argument("--leave-out", nargs="*", default=[], help="subjects to judge on instead")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw batches")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--bfloat16", action="store_true", help="where the processor has it")
    parser.add_argument("--compile", action="store_true", help="fuse kernels first; needs g++")
    return parser


def _named(text: str) -> tuple[str, float | int]:
    name, _, value = text.partition("=")
    usual = asdict(Jitter())
    if name not in usual:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(usual)}")
    return name, type(usual[name])(value)


def _start(
    options: argparse.Namespace, batches: RandomBatches
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, int]:
    network = SmearNet(standardise=not options.imagenet)
    network.to(options.device, memory_format=torch.channels_last)
    last = options.run / "last.pt"
    saved = torch.load(last, map_location="cpu", weights_only=True) if last.exists() else None
    if saved is None and options.weights:
        network.load_state_dict(torch.load(options.weights, map_location="cpu", weights_only=True))
    if saved is None and options.astra:
        _begin_with_astra(network, _first_views(options, batches), options.astra)
    if saved is None and options.graph:
        unfold(network, packaged_weights(options.graph), _first_views(options, batches))
    for name in options.frozen:
        network.get_submodule(name).requires_grad_(False)
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = _optimiser(network, options.rate)
    if saved is None:
        return network, averaged, optimiser, 0
    network.load_state_dict(saved["network"])
    averaged.load_state_dict(saved["averaged"])
    optimiser.load_state_dict(saved["optimiser"])
    return network, averaged, optimiser, saved["step"]


def _begin_with_astra(network: nn.Module, views: list[Tensor], archive: Path) -> None:
    missing, unexpected = network.load_state_dict(astra_start(archive), strict=False)
    heads = {f"{head}.{part}" for head in ("leukemic", "cell_type") for part in ("weight", "bias")}
    if set(missing) != heads or unexpected:
        raise SystemExit(f"the archive does not fit: missing {missing}, unexpected {unexpected}")
    reset_batch_statistics(network, views)


def _first_views(options: argparse.Namespace, batches: RandomBatches) -> list[Tensor]:
    drawn = [batches[step].on(options.device).crops for step in range(FIRST_VIEWS)]
    return [shrunk(crops, options.side) for crops in drawn]


def _optimiser(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW; no decay on norms and biases, the new heads learn three times as fast."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_head = name.startswith(("leukemic.", "cell_type."))
        groups[is_head, parameter.ndim > 1].append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": rate * (3 if is_head else 1),
                "top": rate * (3 if is_head else 1),
                "weight_decay": WEIGHT_DECAY if decays else 0.0,
            }
            for (is_head, decays), parameters in groups.items()
        ],
        fused=True,
    )


def _train(
    options: argparse.Namespace,
    network: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: RandomBatches,
    judged: Mapping[str, CropPack],
    first_step: int,
    teachers: Teachers | None,
) -> None:
    began = time.monotonic()
    losses: list[Tensor] = []
    learner = torch.compile(network) if options.compile else network
    drawn = drawn_ahead(batches, first=first_step, workers=options.workers)
    for step in range(first_step, options.steps):
        _set_rate(optimiser, step, options)
        learner.train()
        for name in options.frozen:
            network.get_submodule(name).eval()
        batch = next(drawn).on(options.device)
        lesson = teachers(batch.crops, uses_bfloat16=options.bfloat16) if teachers else None
        batch = replace(batch, crops=shrunk(batch.crops, options.side))
        losses.append(_learn(learner, optimiser, batch, lesson, options.bfloat16))
        follow(averaged, network, min(options.momentum, (1 + step) / (10 + step)))
        if (step + 1) % options.judge_every == 0 or step + 1 == options.steps:
            _save(options.run, network, averaged, optimiser, step + 1)
            line = {
                "step": step + 1,
                "seconds": round(time.monotonic() - began),
                "loss": round(torch.stack(losses).mean().item(), 4),
            }
            for prefix, pack in judged.items():
                line |= judge(averaged, pack, (batches.side, options.side), prefix)
            _append(options.run / "curve.csv", line)
            losses.clear()


def _set_rate(optimiser: torch.optim.Optimizer, step: int, options: argparse.Namespace) -> None:
    left = options.steps - step
    factor = min(1.0, (step + 1) / options.warmup)
    if options.cooldown:
        factor = min(factor, left / options.cooldown)
    for group in optimiser.param_groups:
        group["lr"] = group["top"] * factor


def _learn(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    lesson: Lesson | None,
    uses_bfloat16: bool,
) -> Tensor:
    with torch.autocast(batch.crops.device.type, dtype=torch.bfloat16, enabled=uses_bfloat16):
        leukemic, cell_type = network(batch.crops)
    if lesson is None:
        loss = joint_loss(leukemic.float(), cell_type.float(), batch)
    else:
        loss = taught_loss(leukemic.float(), cell_type.float(), lesson, TYPE_LOSS_WEIGHT)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return loss.detach()


def joint_loss(leukemic: Tensor, cell_type: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy on leukemic plus cross-entropy on types, each where a label exists."""
    target = batch.leukemic * (1 - LEUKEMIC_SMOOTHING) + LEUKEMIC_SMOOTHING / 2
    binary = nnf.binary_cross_entropy_with_logits(leukemic, target, reduction="none")
    weighted = (binary * batch.leukemic_weight).sum() / batch.leukemic_weight.sum().clamp(min=1)
    types = nnf.cross_entropy(
        cell_type,
        batch.cell_type,
        ignore_index=UNKNOWN,
        label_smoothing=TYPE_SMOOTHING,
        reduction="sum",
    )
    known = (batch.cell_type != UNKNOWN).sum().clamp(min=1)
    return weighted + TYPE_LOSS_WEIGHT * types / known


def _save(
    run: Path, network: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> None:
    state = {
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
    }
    for name, value in (("last.pt", state), ("averaged.pt", averaged.state_dict())):
        torch.save(value, run / f".{name}")
        (run / f".{name}").replace(run / name)


def judge(
    network: nn.Module, pack: CropPack, sides: tuple[int, int], prefix: str
) -> dict[str, float]:
    """Leukemic AUC and type accuracy of each source, on crops that were not fitted."""
    leukemic, types = predict(network, pack, *sides)
    figures: dict[str, float] = {}
    for part, source in sorted({(row.part, row.source) for row in pack.rows}):
        chosen = [i for i, row in enumerate(pack.rows) if (row.part, row.source) == (part, source)]
        rows = [pack.rows[i] for i in chosen]
        figures |= {
            f"{prefix}{source}_{name}": round(value, 4)
            for name, value in _figures(rows, leukemic[chosen], types[chosen]).items()
        }
    return figures


@torch.no_grad()
def predict(
    network: nn.Module, pack: CropPack, view_side: int, side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Leukemic logits N and type logits N×10 of the plain views, shrunk from `view_side`."""
    network.eval()
    device = next(network.parameters()).device
    leukemic, types = [], []
    for batch in plain_batches(pack, side=view_side):
        answers = network(shrunk(batch.on(device).crops, side))
        leukemic.append(answers[0].float().cpu())
        types.append(answers[1].float().cpu())
    return torch.cat(leukemic).numpy(), torch.cat(types).numpy()


def _figures(
    rows: list[CropRow], leukemic: NDArray[np.float32], types: NDArray[np.float32]
) -> dict[str, float]:
    truth = np.array([row.leukemic for row in rows])
    known_types = np.array([row.cell_type for row in rows])
    figures = {"above_half": float((leukemic > 0).mean())}
    if {0, 1} <= set(truth):
        known = truth != UNKNOWN
        figures["auc"] = area_under_roc(truth[known] == 1, leukemic[known])
    typed = known_types != UNKNOWN
    if typed.any():
        figures["types"] = float((types[typed].argmax(1) == known_types[typed]).mean())
    return figures


def _append(path: Path, line: dict[str, float]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, line.keys())
        if is_new:
            writer.writeheader()
        writer.writerow(line)
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
