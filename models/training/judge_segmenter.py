"""Judge the packaged cell finder on the files it never learned from, and on ALL-IDB1.

`python -m models.training.judge_segmenter --data ../shared/data`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from models.evaluation.fields import judge_fields, rows_to_judge, score_fields
from models.evaluation.pack import read_pack
from models.segmenter import OnnxSegmenter
from models.training.segmenter import HELD_OUT

SOURCES = ("bccd", "raabin", "draaslan", "zheng1")
"""With boxes or masks; of each the last sixth of the files, as `segmenter.learned_from` leaves."""
NEVER_LEARNED = "allidb1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    rows = sorted(rows_to_judge(read_pack(options.data, None)), key=lambda row: row.file)
    kept = [row for row in rows if row.source == NEVER_LEARNED]
    for source in SOURCES:
        own = [row for row in rows if row.source == source]
        kept += own[len(own) - len(own) // HELD_OUT :]
    scores = score_fields(judge_fields(kept, segmenter=OnnxSegmenter.load()))
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    main()
