"""Judging boxes, points and masks: a true thing is found once, nothing is found in nothing."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.detection import average_precision, dice, hits, overlaps, points_found

ONE = np.array([[0.0, 0.0, 10.0, 10.0]])
NONE = np.zeros((0, 4))
SQUARE = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.int32)


def test_nothing_found_hits_nothing() -> None:
    assert hits(NONE, [], ONE) == ()


def test_where_nothing_is_true_every_find_is_false() -> None:
    assert hits(ONE, [1.0], NONE) == (False,)


def test_a_true_box_is_found_once_by_the_surest() -> None:
    twice = np.concatenate([ONE, ONE])

    assert hits(twice, [0.4, 0.9], ONE) == (False, True)


@pytest.mark.parametrize(("shift", "is_hit"), [(0.0, True), (3.3, True), (3.4, False)])
def test_half_of_the_union_is_the_limit(shift: float, is_hit: bool) -> None:
    moved = ONE + np.array([shift, 0, 0, 0])

    assert hits(moved, [1.0], ONE) == (is_hit,)


def test_overlap_of_boxes_apart_is_nothing() -> None:
    assert overlaps(ONE, ONE + 20.0)[0, 0] == 0.0


def test_average_precision_knows_no_answer_without_truth() -> None:
    assert average_precision(np.zeros(0), np.zeros(0, np.bool_), 0) is None


def test_average_precision_falls_with_a_sure_false_find() -> None:
    confidences, is_hit = np.array([0.9, 0.8]), np.array([False, True])

    assert average_precision(confidences, is_hit, 1) == pytest.approx(0.5)


def test_one_contour_answers_for_one_point() -> None:
    points = np.array([[4.0, 4.0], [5.0, 5.0]])

    assert points_found(points, [SQUARE]) == 1


def test_dice_knows_no_answer_where_nobody_drew() -> None:
    nothing = np.zeros((4, 4), np.bool_)

    assert dice(~nothing, nothing) is None


def test_dice_of_halves() -> None:
    whole = np.ones((4, 4), np.bool_)
    half = whole.copy()
    half[:2] = False

    assert dice(half, whole) == pytest.approx(2 / 3)
