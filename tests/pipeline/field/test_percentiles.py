"""Percentiles are those of NumPy, whatever the values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.field.percentiles import median, median_color, percentiles

values = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=40)


@given(values, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(numbers: list[float], percent: float) -> None:
    array = np.array(numbers, np.float32)

    low, high = percentiles(array, percent, 99)

    assert low == pytest.approx(np.percentile(array.astype(np.float64), percent), abs=1e-6)
    assert high == pytest.approx(np.percentile(array.astype(np.float64), 99), abs=1e-6)


@given(values)
def test_medians_are_those_of_numpy(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)

    assert median(array) == pytest.approx(np.median(array.astype(np.float64)), abs=1e-6)
    assert median_color(np.stack([array] * 3, axis=1)) == pytest.approx(median(array), abs=1e-6)


def test_pictures_are_read_whole() -> None:
    gray = np.arange(200, dtype=np.uint8).reshape(10, 20)

    assert percentiles(gray, 90) == pytest.approx((np.percentile(gray, 90),))
