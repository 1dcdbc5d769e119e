"""The language of rules: every fault has a place, and every answer is what the text says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Rejected
from reporting.delivery.routing.expression import (
    MAX_DEPTH,
    Answer,
    FactName,
    Facts,
    FactType,
    comparisons,
    parse,
)

NAMES = {
    "device": FactName(type=FactType.TEXT),
    "grade": FactName(type=FactType.TEXT, words=frozenset({"few", "many"})),
    "count": FactName(type=FactType.NUMBER),
    "urgent": FactName(type=FactType.TRUTH),
    "tag.Rows": FactName(type=FactType.TAG),
    "a": FactName(type=FactType.TRUTH),
    "b": FactName(type=FactType.TRUTH),
    "c": FactName(type=FactType.TRUTH),
}
FACTS: Facts = {
    "device": ("SCANNER1", "SCANNER2"),
    "grade": ("few",),
    "count": (3.0,),
    "urgent": (1.0,),
    "tag.Rows": ("480",),
}


def vocabulary(name: str) -> FactName:
    if name not in NAMES:
        raise LookupError(f"there is no fact `{name}`")
    return NAMES[name]


def answer(text: str, facts: Facts = FACTS) -> Answer:
    return parse(text, vocabulary).answer(facts)


@pytest.mark.parametrize(
    ("text", "sign", "part"),
    [
        ("color == 'red'", 1, "no fact `color`"),
        ("device", 1, "compare it"),
        ("device ==", 10, "found the end"),
        ("device == SCANNER1", 11, "found `SCANNER1`"),
        ("device == 'a' 'b'", 15, "expected `and`, `or` or the end"),
        ("device == 3", 11, "compared with a text"),
        ("count > 'three'", 9, "compared with a number"),
        ("grade == 'lots'", 10, "it is few, many"),
        ("(urgent", 8, "expected `)`"),
        ("urgent)", 7, "found `)`"),
        ("not", 4, "found the end"),
        ("and urgent", 1, "found `and`"),
        ("device in 'a'", 11, "expected `[`"),
        ("device in ['a' 'b']", 16, "expected `,` or `]`"),
        ("device in []", 12, "expected a text"),
        ("device not 'a'", 12, "expected `in`"),
        ("'a' device", 5, "expected `in`"),
        ("'a' in", 7, "expected a name"),
        ("urgent = true", 8, "does not begin anything"),
        ("count > 3e5", 9, "does not begin anything"),
        ("device == 'open", 11, "does not begin anything"),
        ("urgent; count", 7, "does not begin anything"),
        ("__import__('os')", 1, "no fact `__import__`"),
        ("device.__class__ == 'x'", 1, "no fact"),
    ],
)
def test_a_fault_is_told_with_its_place(text: str, sign: int, part: str) -> None:
    with pytest.raises(Rejected) as told:
        parse(text, vocabulary)

    assert told.value.code == "route_expression"
    assert f"sign {sign}:" in told.value.message
    assert part in told.value.message


@pytest.mark.parametrize(
    "text", ["(" * (MAX_DEPTH + 1) + "urgent", "not " * (MAX_DEPTH + 1) + "urgent"]
)
def test_deep_nesting_is_a_fault(text: str) -> None:
    with pytest.raises(Rejected, match="nested deeper"):
        parse(text, vocabulary)


def test_great_length_is_a_fault() -> None:
    with pytest.raises(Rejected, match="longer"):
        parse("urgent or " * 500 + "urgent", vocabulary)


@given(st.text(alphabet="abcdeginorstuv()[]=!<>,.'\"0123456789 \n\\_", max_size=60))
def test_any_text_is_read_or_told_to_be_faulty(text: str) -> None:
    try:
        found = parse(text, vocabulary)
    except Rejected as err:
        assert err.code == "route_expression"
    else:
        assert found.answer(FACTS) in (True, False, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("true", True),
        ("not true", False),
        ("device == 'SCANNER1'", True),
        ('device == "scanner1"', False),
        ("device != 'SCANNER1'", False),
        ("device != 'OTHER'", True),
        ("device in ['OTHER', 'SCANNER2']", True),
        ("device not in ['OTHER', 'SCANNER2']", False),
        ("'SCANNER2' in device", True),
        ("device like 'SCAN*'", True),
        ("device like 'scan*'", False),
        ("grade in ['few', 'many']", True),
        ("grade like 'm*'", False),
        ("count", True),
        ("count > 2", True),
        ("count >= 3 and count <= 3", True),
        ("count < -1.5", False),
        ("count == 3", True),
        ("count in [1, 2]", False),
        ("urgent", True),
        ("urgent == false", False),
        ("urgent == true", True),
        ("tag.Rows == '480'", True),
        ("tag.Rows > 479.5", True),
        ("tag.Rows == 480", True),
        ("not urgent or count > 2", True),
        ("not (urgent or count > 2)", False),
        ("urgent or urgent and false", True),
        ("urgent\n and count", True),
    ],
)
def test_what_an_expression_says(text: str, expected: bool) -> None:
    assert answer(text) is expected


@pytest.mark.parametrize("name", ["device == 'x'", "count > 1", "count", "tag.Rows > 1", "urgent"])
def test_a_fact_without_a_value_meets_no_comparison(name: str) -> None:
    empty: Facts = dict.fromkeys(NAMES, ())

    assert answer(name, empty) is False
    assert answer(f"not ({name})", empty) is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("urgent", None),
        ("not urgent", None),
        ("urgent or count > 2", True),
        ("urgent and count > 9", False),
        ("urgent and count > 2", None),
        ("urgent or count > 9", None),
    ],
)
def test_what_is_not_known_only_counts_where_it_decides(text: str, expected: Answer) -> None:
    assert answer(text, {**FACTS, "urgent": None}) is expected


def test_its_questions_are_told_as_written() -> None:
    found = parse("device  in ['a',\t'b'] and not (count>2 or 'few' in grade)", vocabulary)

    asked = [one.text for one in comparisons(found)]

    assert asked == ["device  in ['a',\t'b']", "count>2", "'few' in grade"]


Oracle = Callable[[dict[str, bool]], bool]


def _expressions() -> st.SearchStrategy[tuple[str, Oracle]]:
    """Texts beside what Python says of them."""
    leaves: list[tuple[str, Oracle]] = [
        ("a", lambda known: known["a"]),
        ("b", lambda known: known["b"]),
        ("c", lambda known: known["c"]),
        ("true", lambda _: True),
        ("false", lambda _: False),
    ]
    return st.recursive(
        st.sampled_from(leaves),
        lambda inner: st.one_of(
            inner.map(lambda one: (f"not ({one[0]})", lambda known: not one[1](known))),
            st.tuples(inner, inner).map(
                lambda two: (
                    f"({two[0][0]}) and ({two[1][0]})",
                    lambda known: two[0][1](known) and two[1][1](known),
                )
            ),
            st.tuples(inner, inner).map(
                lambda two: (
                    f"({two[0][0]}) or ({two[1][0]})",
                    lambda known: two[0][1](known) or two[1][1](known),
                )
            ),
        ),
        max_leaves=8,
    )


@given(_expressions())
def test_logic_is_that_of_python(pair: tuple[str, Oracle]) -> None:
    text, oracle = pair
    found = parse(text, vocabulary)

    for values in product((False, True), repeat=3):
        known = dict(zip("abc", values, strict=True))
        facts = {name: (float(value),) for name, value in known.items()}
        assert found.answer(facts) is oracle(known)
