"""Boxes that a person saw to be wrong are not learned from; all others are."""

from __future__ import annotations

import numpy as np

from models.training.segmenter_labels import MISPLACED, UNBOXED, well_placed

RIGHT = np.array([[20.0, 30.0, 50.0, 60.0]])


def test_a_box_on_a_red_cell_is_left_out_and_the_others_stay() -> None:
    stem, (corner, *_) = next(iter(MISPLACED.items()))
    wrong = np.array([[*corner, 40.0, 40.0]])

    kept = well_placed(np.concatenate([wrong, RIGHT]), stem)

    np.testing.assert_array_equal(kept, RIGHT)


def test_boxes_of_other_files_stay_wherever_they_lie() -> None:
    _, (corner, *_) = next(iter(MISPLACED.items()))
    boxes = np.array([[*corner, 40.0, 40.0]])

    np.testing.assert_array_equal(well_placed(boxes, "another"), boxes)


def test_a_file_without_boxes_has_none() -> None:
    assert well_placed(np.zeros((0, 4)), next(iter(MISPLACED))).shape == (0, 4)


def test_what_was_added_by_eye_is_a_box_of_some_size() -> None:
    for boxes in UNBOXED.values():
        assert all(min(box[2:]) > 0 for box in boxes)
