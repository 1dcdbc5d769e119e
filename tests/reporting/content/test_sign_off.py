"""What people remarked, in words."""

from __future__ import annotations

from reporting.content.sign_off import MOST_COMMENTS, comments_in_words
from tests.findings import make_smear_findings
from tests.reporting.reviews import commented

UID = make_smear_findings().fields[1].sop_instance_uid


def test_a_comment_names_who_and_the_cells_as_pictures_number_them() -> None:
    cells = tuple(f"{UID}:1:{number}" for number in range(1, 8))

    words = list(
        comments_in_words(
            commented(make_smear_findings(), ("Auer rods", cells[:1]), ("all", cells), ("old", ()))
        )
    )

    assert words == [
        "Comment by Jana Meyer on field 2 #1: Auer rods",
        "Comment by Jana Meyer on field 2 #1, field 2 #2, field 2 #3, field 2 #4, field 2 #5"
        " and 2 more: all",
        "Comment by Jana Meyer on the smear: old",
    ]


def test_of_many_comments_the_latest_are_given_and_the_rest_is_told() -> None:
    many: list[tuple[str, tuple[str, ...]]] = [
        (f"remark {number}", ()) for number in range(MOST_COMMENTS + 3)
    ]

    told, *words = comments_in_words(commented(make_smear_findings(), *many))

    assert told == f"The latest {MOST_COMMENTS} of {MOST_COMMENTS + 3} comments:"
    assert len(words) == MOST_COMMENTS
    assert words[-1].endswith(f"remark {MOST_COMMENTS + 2}")


def test_no_comment_is_no_sentence() -> None:
    assert list(comments_in_words(make_smear_findings())) == []
    assert list(comments_in_words(commented(make_smear_findings()))) == []
