"""Memory and threads stay flat over thousands of images and hundreds of failed deliveries.

Two measures. Python's memory blocks, counted after a collection of garbage, hardly stir: whatever
of ours kept an object an image would show at once. Resident memory sees what libraries in C keep,
and what levels off only late: see "Memory" in docs/operations.md.

Part of `make chaos`; draws what it measured into flat.svg.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pynetdicom import evt

from tests.acceptance.counting_peers import CountingPacs
from tests.acceptance.killing import Running, Trial, trial, until

IMAGES = 2000
FAILURES = 500
BATCH = 5
SAMPLED_EVERY = 25
MOST_KB_AN_IMAGE = 12.0
"""Slope over the last three quarters; in the first caches fill and pools open. A working thread
that comes late and draws its first text adds 8 MB: halfway, that alone is a slope of 8."""
MOST_BLOCKS_AN_IMAGE = 3.0
"""One is the UID of each image that is still in the inbox."""
MOST_MORE_THREADS = 4
OUT_OF_RESOURCES = 0xA700

pytestmark = pytest.mark.chaos


class RefusingPacs(CountingPacs):
    """Refuses every other object, until it has refused so many."""

    def __init__(self, folder: Path, failures: int) -> None:
        super().__init__(folder)
        self.failures = 0
        self._wanted = failures
        self._count = 0

    def on_store(self, event: evt.Event) -> int:
        self._count += 1
        if self._count % 2 and self.failures < self._wanted:
            self.failures += 1
            return OUT_OF_RESOURCES
        return super().on_store(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the service took at one moment."""

    images: int
    memory_mb: float
    blocks: int
    """Pieces of memory that Python's objects hold, garbage collected."""
    threads: int


def test_memory_and_threads_stay_flat(tmp_path: Path) -> None:
    pacs = RefusingPacs(tmp_path / "pacs", FAILURES)
    with trial(tmp_path, pacs=pacs) as killing:
        running = killing.start()
        assert running.is_up()

        samples = _samples(killing, running)
        running.stop()

        _draw(samples, tmp_path / "flat.svg")
        print(f"\n{_summary(samples)}, {pacs.failures} failed deliveries: {tmp_path}/flat.svg")
        verdict = killing.verdict()
        assert (verdict.images, verdict.lost, verdict.duplicated) == (IMAGES, 0, 0)
        assert pacs.failures == FAILURES
        assert _kb_an_image(samples) < MOST_KB_AN_IMAGE
        assert _blocks_an_image(samples) < MOST_BLOCKS_AN_IMAGE
        second, last = _quarter(samples, 1), _quarter(samples, 3)
        assert _threads(last) - _threads(second) <= MOST_MORE_THREADS


def _samples(killing: Trial, running: Running) -> list[Sample]:
    samples = []
    while len(killing.acknowledged) < IMAGES:
        for _ in range(min(BATCH, IMAGES - len(killing.acknowledged))):
            until(lambda: killing.send(running.port))
        until(lambda: (running.ask("status") or (False,))[0])
        if len(killing.acknowledged) % SAMPLED_EVERY == 0:
            samples.append(_sample(running, len(killing.acknowledged)))
    until(lambda: killing.lost() == 0)
    return samples


def _sample(running: Running, images: int) -> Sample:
    blocks = running.ask("blocks")
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return Sample(
        images=images,
        memory_mb=int(found["VmRSS"][0]) / 1024,
        blocks=blocks,
        threads=int(found["Threads"][0]),
    )


def _kb_an_image(samples: Sequence[Sample]) -> float:
    return 1024 * _slope(samples, lambda sample: sample.memory_mb)


def _blocks_an_image(samples: Sequence[Sample]) -> float:
    return _slope(samples, lambda sample: sample.blocks)


def _slope(samples: Sequence[Sample], of: Callable[[Sample], float]) -> float:
    """How much more an image, over the last three quarters."""
    settled = samples[len(samples) // 4 :]
    images = [sample.images for sample in settled]
    return statistics.linear_regression(images, [of(sample) for sample in settled]).slope


def _quarter(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    length = max(1, len(samples) // 4)
    return samples[number * length : (number + 1) * length]


def _memory_mb(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.memory_mb for sample in samples)


def _threads(samples: Sequence[Sample]) -> float:
    return max(sample.threads for sample in samples)


def _summary(samples: Sequence[Sample]) -> str:
    quarters = [_quarter(samples, number) for number in range(4)]
    memory = ", ".join(f"{_memory_mb(one):.0f}" for one in quarters)
    threads = ", ".join(f"{_threads(one):.0f}" for one in quarters)
    return (
        f"{samples[-1].images} images; by quarter {memory} MB and {threads} threads; an image "
        f"{_kb_an_image(samples):.1f} kB and {_blocks_an_image(samples):.2f} blocks more"
    )


def _draw(samples: Sequence[Sample], path: Path) -> None:
    """Two lines over the images, each scaled to the most that it reached."""
    width, height, margin = 800, 300, 40
    most_mb = max(sample.memory_mb for sample in samples)
    most_threads = max(sample.threads for sample in samples)

    def line(values: Sequence[float], most: float, color: str) -> str:
        last = samples[-1].images
        across = [margin + width * sample.images / last for sample in samples]
        down = [margin + height * (1 - value / most) for value in values]
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y in zip(across, down, strict=True))
        return f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>'

    bottom = margin + height
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="14" '
        f'viewBox="0 0 {width + 2 * margin} {height + 2 * margin}">'
        '<rect width="100%" height="100%" fill="white"/>'
        f'<path d="M{margin} {margin}V{bottom}H{margin + width}" fill="none" stroke="black"/>'
        + line([sample.memory_mb for sample in samples], most_mb, "#0072b2")
        + line([sample.threads for sample in samples], most_threads, "#d55e00")
        + f'<text x="{margin}" y="25" fill="#0072b2">memory, at most {most_mb:.0f} MB</text>'
        f'<text x="{margin + 300}" y="25" fill="#d55e00">threads, at most {most_threads}</text>'
        f'<text x="{margin}" y="{bottom + 25}">0 to {samples[-1].images} images</text></svg>'
    )
