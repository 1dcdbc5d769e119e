"""Judge the packaged cell finder on the files it never learned from, and on ALL-IDB1.

`python -m models.training.evaluate_segmenter --data ../shared/data`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from models.evaluation.fields import judge_fields, rows_to_judge, score_fields
from models.evaluation.pack import PackRow, read_pack
from models.segmenter import OnnxSegmenter
from models.training.split import parted

SOURCES = ("bccd", "raabin", "draaslan", "zheng1")
"""With boxes or masks; of each what `held_out.parted` keeps from learning."""
NEVER_LEARNED = "allidb1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    rows = rows_to_judge(read_pack(options.data, None))
    scores = score_fields(judge_fields(never_learned(rows), segmenter=OnnxSegmenter.load()))
    print(json.dumps(scores, indent=1))


def never_learned(rows: Sequence[PackRow]) -> list[PackRow]:
    """The pictures of a pack that can judge the packaged network."""
    held_out = parted([row for row in rows if row.source in SOURCES])[1]
    return [row for row in rows if row.source == NEVER_LEARNED] + held_out


if __name__ == "__main__":
    main()
