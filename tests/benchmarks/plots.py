"""Bar charts as SVG, drawn by the benchmarks for docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

BAR, GAP, LEFT, WIDE = 22, 10, 260, 420


def draw_bars(path: Path, title: str, values: Mapping[str, float], unit: str) -> None:
    """One horizontal bar per value, with its figure."""
    longest = max(values.values(), default=1.0) or 1.0
    height = 50 + len(values) * (BAR + GAP)
    rows = [f'<text x="10" y="24" font-size="15" font-weight="bold">{escape(title)}</text>']
    for number, (name, value) in enumerate(values.items()):
        y = 42 + number * (BAR + GAP)
        length = max(1.0, WIDE * value / longest)
        rows += [
            f'<text x="{LEFT - 8}" y="{y + 16}" font-size="13" text-anchor="end">'
            f"{escape(name)}</text>",
            f'<rect x="{LEFT}" y="{y}" width="{length:.0f}" height="{BAR}" fill="#3b6ea5"/>',
            f'<text x="{LEFT + length + 6:.0f}" y="{y + 16}" font-size="13">'
            f"{value:g} {escape(unit)}</text>",
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDE + 120}" height="{height}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
        + "".join(rows)
        + "</svg>\n",
        encoding="utf-8",
    )
