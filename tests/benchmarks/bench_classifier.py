"""Crops a second of the packaged model: `python -m tests.benchmarks.bench_classifier`.

Prints one JSON line a precision: what ran, on how many threads, and the median of several rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from models.classifier import MODEL_FOLDER, OnnxClassifier
from models.manifest import read_manifest

CROPS = 128
ROUNDS = 5
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    crops = np.random.default_rng(SEED).integers(0, 256, (CROPS, 224, 224, 3), dtype=np.uint8)
    for precision in read_manifest(options.folder / "manifest.toml").files:
        classifier = OnnxClassifier.load(
            options.folder, precision=precision, threads=options.threads
        )
        classifier.classify(crops[:16])
        rates = [CROPS / _seconds(classifier, crops) for _ in range(ROUNDS)]
        print(
            json.dumps(
                {
                    "precision": precision,
                    "provider": classifier.identity.execution_provider,
                    "threads": options.threads,
                    "crops_per_s": round(statistics.median(rates), 1),
                    "slowest": round(min(rates), 1),
                    "fastest": round(max(rates), 1),
                }
            )
        )


def _seconds(classifier: OnnxClassifier, crops: np.ndarray) -> float:
    began = time.perf_counter()
    classifier.classify(crops)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
