"""Bounded, seeded changes of bytes: what a damaged file, a broken peer or an attacker sends."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

CASES = int(os.environ.get("FUZZ_CASES", "1000"))
"""Changes of each seed of a target."""
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CORPUS = Path(__file__).with_name("corpus")
MOST_BYTES = 64 * 1024
INTERESTING = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0")


def changed(target: str, *seeds: bytes) -> Iterator[bytes]:
    """The corpus of a target, its seeds as they are, and CASES changes of each seed."""
    yield from corpus(target)
    chance = random.Random(f"{SEED} {target}")  # noqa: S311 - it need not be secret
    for seed in seeds:
        yield seed
        for _ in range(CASES):
            yield change(seed, chance)


def corpus(target: str) -> list[bytes]:
    """What was found before."""
    folder = CORPUS / target
    return [path.read_bytes() for path in sorted(folder.glob("*"))] if folder.is_dir() else []


def change(data: bytes, chance: random.Random) -> bytes:
    """One to four changes of a kind that a parser may stumble over."""
    content = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        length = min(chance.choice((1, 2, 4, 8, 64, 1000)), max(0, len(content) - at))
        match chance.randrange(7):
            case 0 if length:
                content[at] = chance.randrange(256) if at < len(content) else 0
            case 1:
                content[at : at + length] = chance.choice(INTERESTING)
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                del content[at:]
            case 5:
                content[at:at] = chance.randbytes(chance.choice((1, 2, 7, 100)))
            case _:
                start = chance.randrange(len(content) + 1)
                content[at : at + length] = content[start : start + length]
    return bytes(content[: max(len(data), MOST_BYTES)])
