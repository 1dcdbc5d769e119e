"""What one, ten and a thousand hospitals need: days of arrivals against measured costs.

    python -m tests.benchmarks.simulate_hospitals [--image-s 0.11] [--days 3]

Minute by minute: images arrive with the day's peaks, workers take what they can, now and then a
worker dies and its images wait until it is taken over, and at night the PACS of each hospital is
away for six hours. `--image-s` is the service's CPU time per image (bench_end_to_end); a core
works off 60 ÷ that in a minute. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from dataclasses import asdict, dataclass

IMAGES_PER_HOSPITAL_DAY = 1_050
"""A large hospital: 3.4 million cells in half a year, 18 cells in a field."""
RESULTS_PER_IMAGE, RESULTS_PER_MINUTE = 4, 600
TAKEOVER_MIN, DEATHS_PER_WORKER_DAY = 1, 1.0
PACS_AWAY_H = (0, 6)
PEAK_H, PEAK_SHARE = (8, 12), 0.5
"""Half of the day's images come in the morning."""
FULL = 0.7
"""Planned use of the cores in the busiest hour."""
SEED = 20261128


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A number of hospitals and what they need."""

    hospitals: int
    images_per_day: int
    cores: int
    busiest_use: float
    longest_wait_min: float
    """Of an image until it is analysed."""
    longest_pacs_backlog: int
    """Results of one hospital that wait for its PACS."""
    backlog_gone_min: int
    """After the PACS is back."""


def arrivals_per_minute(images_per_day: int, hour: int) -> float:
    start, end = PEAK_H
    if start <= hour < end:
        return images_per_day * PEAK_SHARE / ((end - start) * 60)
    return images_per_day * (1 - PEAK_SHARE) / ((24 - end + start) * 60)


def simulate(hospitals: int, *, image_s: float, days: int) -> Plan:
    rng = random.Random(SEED)  # noqa: S311 - a simulation
    per_day = hospitals * IMAGES_PER_HOSPITAL_DAY
    peak = arrivals_per_minute(per_day, PEAK_H[0])
    cores = max(2, math.ceil(peak * image_s / 60 / FULL))
    waiting, longest, pacs, most_pacs, gone = 0.0, 0.0, 0.0, 0.0, 0
    away_until: int | None = None
    dead_until = [-1] * cores
    for minute in range(days * 24 * 60):
        hour = minute // 60 % 24
        for core in range(cores):
            if rng.random() < DEATHS_PER_WORKER_DAY / (24 * 60):
                dead_until[core] = minute + TAKEOVER_MIN
        alive = sum(until < minute for until in dead_until)
        arrived = _poisson(rng, arrivals_per_minute(per_day, hour))
        capacity = alive * 60 / image_s
        waiting += arrived
        done = min(waiting, capacity)
        waiting -= done
        if capacity:
            longest = max(longest, waiting / capacity)
        # One hospital's PACS; deliveries to others never wait for it.
        pacs += done / hospitals * RESULTS_PER_IMAGE
        most_pacs = max(most_pacs, pacs)
        if PACS_AWAY_H[0] <= hour < PACS_AWAY_H[1]:
            away_until = minute
        else:
            pacs = max(0.0, pacs - RESULTS_PER_MINUTE)
            if away_until is not None and not pacs:
                gone, away_until = max(gone, minute - away_until), None
    return Plan(
        hospitals=hospitals,
        images_per_day=per_day,
        cores=cores,
        busiest_use=round(peak * image_s / 60 / cores, 3),
        longest_wait_min=round(longest, 2),
        longest_pacs_backlog=round(most_pacs),
        backlog_gone_min=gone,
    )


def _poisson(rng: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-s", type=float, default=0.11)
    parser.add_argument("--days", type=int, default=3)
    asked = parser.parse_args()
    plans = [simulate(n, image_s=asked.image_s, days=asked.days) for n in (1, 10, 1000)]
    for plan in plans:
        print(plan)
    print(json.dumps([asdict(plan) for plan in plans]))


if __name__ == "__main__":
    main()
