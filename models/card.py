"""Reads the card of a network: what it was taught with, how good it is, what it cannot do."""

from __future__ import annotations

from pathlib import Path

CARD_NAME = "MODEL_CARD.md"


def read_model_card(folder: Path) -> str:
    """The card beside the network's file, in Markdown; "" where it came without one."""
    path = folder / CARD_NAME
    return path.read_text(encoding="utf-8") if path.is_file() else ""
