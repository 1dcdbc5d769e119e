"""What judges the segmenter is what it did not learn from: the same rule, once."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.pack import PackRow, PictureKind
from models.training.evaluate_segmenter import NEVER_LEARNED, SOURCES, never_learned
from models.training.split import HELD_OUT, parted


def row(source: str, number: int, cell_type: str = "") -> PackRow:
    return PackRow(
        root=Path(),
        file=f"{source}/images/{cell_type}{number:03}.jpg",
        source=source,
        kind=PictureKind.FIELD,
        label="",
        cell_type=cell_type,
        subtype="",
        subject="",
        split="",
        is_masked=False,
    )


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from([*SOURCES, NEVER_LEARNED, "pbc", "lmu"]),
        st.integers(0, 40),
        st.sampled_from(["", "monocyte", "neutrophil"]),
    ),
    max_size=60,
    unique_by=lambda one: one.file,
)


@given(ROWS)
def test_every_picture_is_learned_from_or_held_out_and_none_is_both(rows: list[PackRow]) -> None:
    learned, held_out = parted(rows)

    assert sorted(one.file for one in learned + held_out) == sorted(one.file for one in rows)


@given(ROWS.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_the_order_of_the_pictures_does_not_matter(
    rows: tuple[list[PackRow], list[PackRow]],
) -> None:
    one, other = (parted(given_order) for given_order in rows)

    assert {row.file for row in one[1]} == {row.file for row in other[1]}


def test_the_last_sixth_of_each_type_is_held_out() -> None:
    rows = [row("pbc", n, kind) for kind in ("monocyte", "neutrophil") for n in range(2 * HELD_OUT)]

    held_out = parted(rows)[1]

    assert [(one.cell_type, one.file[-7:-4]) for one in held_out] == [
        (kind, number) for kind in ("monocyte", "neutrophil") for number in ("010", "011")
    ]


@given(ROWS)
def test_no_picture_judges_that_was_learned_from(rows: list[PackRow]) -> None:
    """Training parts all sources at once, judging only those with boxes or masks."""
    learned = {one.file for one in parted(rows)[0] if one.source != NEVER_LEARNED}
    judging = {one.file for one in never_learned(rows)}

    assert not learned & judging
    assert judging | learned >= {one.file for one in rows if one.source in SOURCES}
