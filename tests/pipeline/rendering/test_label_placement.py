"""Labels stand inside the picture, off every cell and off each other, wherever there is room."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rendering.label_placement import (
    CELL_OVERLAP_COST,
    DISTANCE_COST,
    LABEL_OVERLAP_COST,
    SWEEPS,
    Label,
    Rect,
    _candidates,
    place_labels,
)

WIDTH, HEIGHT = 900, 700


def test_no_cells_no_labels() -> None:
    assert place_labels([], width=WIDTH, height=HEIGHT, gap=4) == []


def test_a_lone_cell_has_its_label_above_it() -> None:
    [(x, y, width, height)] = place_labels([_label(400, 300)], width=WIDTH, height=HEIGHT, gap=4)

    assert y + height + 4 == 300
    assert x + width // 2 == 400 + 30


def test_a_cell_at_the_upper_edge_has_its_label_elsewhere() -> None:
    label = _label(400, 0)

    [place] = place_labels([label], width=WIDTH, height=HEIGHT, gap=4)

    assert _shared(place, label.anchor) == 0


def test_touching_cells_do_not_share_a_label_place() -> None:
    labels = [_label(300 + 61 * n, 300) for n in range(4)]

    places = place_labels(labels, width=WIDTH, height=HEIGHT, gap=4)

    assert _overlaps(places) == 0
    assert all(_shared(place, label.anchor) == 0 for place in places for label in labels)


def test_a_label_wider_than_the_picture_still_starts_in_it() -> None:
    [place] = place_labels(
        [Label(anchor=(2, 2, 6, 6), width=80, height=20)], width=60, height=60, gap=2
    )

    assert place[:2] == (0, 10)


@given(st.lists(st.tuples(st.integers(0, WIDTH - 60), st.integers(0, HEIGHT - 60)), max_size=40))
def test_every_label_is_inside_the_picture(corners: list[tuple[int, int]]) -> None:
    places = place_labels([_label(x, y) for x, y in corners], width=WIDTH, height=HEIGHT, gap=4)

    assert len(places) == len(corners)
    for x, y, width, height in places:
        assert 0 <= x <= WIDTH - width
        assert 0 <= y <= HEIGHT - height


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 120)), max_size=6))
def test_a_label_that_is_not_asked_again_would_have_stayed(corners: list[tuple[int, int]]) -> None:
    labels = [_label(x, y) for x, y in corners]

    places = place_labels(labels, width=WIDTH, height=HEIGHT, gap=4)

    assert places == _each_asked_in_each_sweep(labels)


def test_a_full_field_keeps_its_labels_apart() -> None:
    """Sixty cells in a grid: the sweeps settle what the first choice got wrong."""
    labels = [_label(20 + 88 * (n % 10), 60 + 110 * (n // 10)) for n in range(60)]

    places = place_labels(labels, width=WIDTH, height=HEIGHT, gap=4)

    assert _overlaps(places) == 0


def _label(x: int, y: int) -> Label:
    return Label(anchor=(x, y, 60, 60), width=80, height=20)


def _each_asked_in_each_sweep(labels: list[Label]) -> list[Rect]:
    """By the rules alone, without a thought for speed."""
    taken: dict[int, Rect] = {}
    for _ in range(1 + SWEEPS):
        for number, label in enumerate(labels):
            others = [place for other, place in taken.items() if other != number]

            def cost(
                choice: tuple[Rect, float], label: Label = label, others: list[Rect] = others
            ) -> float:
                place, ring = choice
                over_cells = sum(_shared(place, other.anchor) for other in labels)
                over_labels = sum(_shared(place, other) for other in others)
                own = CELL_OVERLAP_COST * over_cells
                own += DISTANCE_COST * ring * label.width * label.height
                return own + LABEL_OVERLAP_COST * over_labels

            taken[number] = min(_candidates(label, WIDTH, HEIGHT, 4), key=cost)[0]
    return [taken[number] for number in range(len(labels))]


def _overlaps(places: list[Rect]) -> int:
    return sum(_shared(one, other) for n, one in enumerate(places) for other in places[n + 1 :])


def _shared(one: Rect, other: Rect) -> int:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, high)
