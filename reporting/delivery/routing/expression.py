"""Parses the expression language of routing rules; checked when parsed, never run as code.

    expression = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" expression ")" | "true" | "false" | comparison
    comparison = text "in" name
               | name [ operator literal | [ "not" ] "in" "[" literal { "," literal } "]" ]
    operator   = "==" | "!=" | "<" | "<=" | ">" | ">=" | "like"
    literal    = "text" | 'text' | number

A name stands for all values that a smear has of it (images may differ): a comparison holds when
it holds for one of them, and `!=` and `not in` hold when it holds for none. What is not known yet
makes an answer unknown, unless the rest decides (Kleene's three-valued logic).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal

from pipeline.errors import Rejected

Value = str | float
Values = tuple[Value, ...]
Facts = Mapping[str, Values | None]
"""By name; None where it is not known yet. A truth is the number 1 or 0."""
Answer = bool | None
"""None when what is known does not decide."""

MAX_DEPTH = 32
MAX_LENGTH = 2000
TAG_PREFIX = "tag."
WORDS = ("and", "or", "not", "in", "like", "true", "false")
TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
      | (?P<text>"[^"\n]*"|'[^'\n]*')
      | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE,
)


class FactType(StrEnum):
    """The type of a fact."""

    TEXT = "text"
    NUMBER = "number"
    TRUTH = "truth"
    TAG = "tag"
    """Text that is compared as a number where the literal is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactName:
    """A name that rules may use. `words` are all values that a text can have, if it has a list."""

    type: FactType
    words: frozenset[str] = frozenset()


Vocabulary = Callable[[str], FactName]
"""Gives what a name stands for; raises LookupError with a sentence for one that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """`true` or `false`."""

    value: bool

    def answer(self, _facts: Facts) -> Answer:
        """The value itself."""
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One question to one fact; `text` is the question as it was written."""

    text: str
    name: str
    operator: str
    literals: Values

    def answer(self, facts: Facts) -> Answer:
        """Compare the facts of that name; None where there are none."""
        values = facts.get(self.name)
        if values is None:
            return None
        holds = any(_holds(self.operator, one, to) for one in values for to in self.literals)
        return holds != (self.operator in NEGATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Negation:
    """`not` of its inner expression."""

    inner: Expression

    def answer(self, facts: Facts) -> Answer:
        """The opposite; unknown stays unknown."""
        said = self.inner.answer(facts)
        return None if said is None else not said


@dataclass(frozen=True, slots=True, kw_only=True)
class Junction:
    """`and` or `or` of two and more."""

    word: Literal["and", "or"]
    parts: tuple[Expression, ...]

    def answer(self, facts: Facts) -> Answer:
        """Combine the parts; one decisive part decides."""
        decisive = self.word == "or"
        said = [part.answer(facts) for part in self.parts]
        if decisive in said:
            return decisive
        return None if None in said else not decisive


Expression = Constant | Comparison | Negation | Junction

COMPARERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NEGATED = ("!=", "not in")


def parse(text: str, vocabulary: Vocabulary) -> Expression:
    """The expression; an empty one always holds. Raises Rejected with the place of the fault."""
    if len(text) > MAX_LENGTH:
        raise _fault(text, MAX_LENGTH, f"it is longer than {MAX_LENGTH} signs")
    if not text.strip():
        return Constant(value=True)
    return _Reader(text, vocabulary).whole()


def comparisons(expression: Expression) -> Iterator[Comparison]:
    """Every question that an expression asks, from left to right."""
    if isinstance(expression, Comparison):
        yield expression
    elif isinstance(expression, Negation):
        yield from comparisons(expression.inner)
    elif isinstance(expression, Junction):
        for part in expression.parts:
            yield from comparisons(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    """number, name, text, sign, or end."""
    text: str
    at: int

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else f"`{self.text}`"


class _Reader:
    """Parses tokens from left to right, one function per rule of the grammar."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self._text = text
        self._vocabulary = vocabulary
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        found = self._expression()
        if self._seen.kind != "end":
            raise self._unexpected("`and`, `or` or the end")
        return found

    @property
    def _seen(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._seen
        self._next += token.kind != "end"
        return token

    def _takes(self, *texts: str) -> bool:
        is_there = self._seen.kind in ("name", "sign") and self._seen.text in texts
        self._next += is_there
        return is_there

    def _expression(self) -> Expression:
        parts = [self._conjunction()]
        while self._takes("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Junction(word="or", parts=tuple(parts))

    def _conjunction(self) -> Expression:
        parts = [self._negation()]
        while self._takes("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Junction(word="and", parts=tuple(parts))

    def _negation(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _fault(self._text, self._seen.at, f"it is nested deeper than {MAX_DEPTH}")
        try:
            if self._takes("not"):
                return Negation(inner=self._negation())
            if self._takes("("):
                return self._bracketed()
            if self._seen.kind == "name" and self._seen.text in ("true", "false"):
                return Constant(value=self._take().text == "true")
            return self._comparison()
        finally:
            self._depth -= 1

    def _bracketed(self) -> Expression:
        inner = self._expression()
        if not self._takes(")"):
            raise self._unexpected("`)`")
        return inner

    def _comparison(self) -> Comparison:
        start = self._seen
        if start.kind == "text":
            return self._text_in_name()
        if start.kind != "name" or start.text in WORDS:
            raise self._unexpected("a name, `not` or `(`")
        name, fact = self._named()
        if self._takes("==", "!=", "<", "<=", ">", ">=", "like"):
            asked = self._tokens[self._next - 1].text
            literals: Values = (self._literal(fact, asked),)
        elif self._takes("not"):
            if not self._takes("in"):
                raise self._unexpected("`in`")
            asked, literals = "not in", self._list(fact)
        elif self._takes("in"):
            asked, literals = "in", self._list(fact)
        else:
            asked, literals = self._as_truth(start, fact)
        return self._compared(start, name, asked, literals)

    def _text_in_name(self) -> Comparison:
        start = self._take()
        if not self._takes("in"):
            raise self._unexpected("`in` and a name")
        if self._seen.kind != "name" or self._seen.text in WORDS:
            raise self._unexpected("a name")
        at = self._next
        name, fact = self._named()
        end = self._next
        self._next = at - 2
        literal = self._literal(fact, "==")
        self._next = end
        return self._compared(start, name, "==", (literal,))

    def _compared(self, start: _Token, name: str, asked: str, literals: Values) -> Comparison:
        last = self._tokens[self._next - 1]
        text = self._text[start.at : last.at + len(last.text)]
        return Comparison(text=text, name=name, operator=asked, literals=literals)

    def _named(self) -> tuple[str, FactName]:
        token = self._take()
        try:
            return token.text, self._vocabulary(token.text)
        except LookupError as err:
            raise _fault(self._text, token.at, str(err.args[0])) from err

    def _as_truth(self, start: _Token, fact: FactName) -> tuple[str, Values]:
        """A name alone: a truth, or a number above zero."""
        if fact.type not in (FactType.TRUTH, FactType.NUMBER):
            raise _fault(
                self._text, start.at, f"`{start.text}` is {fact.type}: compare it with something"
            )
        return ">", (0.0,)

    def _list(self, fact: FactName) -> Values:
        if not self._takes("["):
            raise self._unexpected("`[`")
        literals = [self._literal(fact, "in")]
        while self._takes(","):
            literals.append(self._literal(fact, "in"))
        if not self._takes("]"):
            raise self._unexpected("`,` or `]`")
        return tuple(literals)

    def _literal(self, fact: FactName, asked: str) -> Value:
        token = self._take()
        if fact.type is FactType.TRUTH and token.text in ("true", "false"):
            return float(token.text == "true")
        if token.kind not in ("text", "number"):
            raise self._unexpected("a text in quotes or a number", token)
        wanted = _wanted_kind(fact, asked, token.kind)
        if token.kind != wanted:
            raise _fault(
                self._text, token.at, f"this is compared with a {wanted}, not with {token.shown}"
            )
        return float(token.text) if token.kind == "number" else self._word(fact, token, asked)

    def _word(self, fact: FactName, token: _Token, asked: str) -> str:
        word = token.text[1:-1]
        if asked != "like" and fact.words and word not in fact.words:
            known = ", ".join(sorted(fact.words))
            raise _fault(self._text, token.at, f"`{word}` never is a value here: it is {known}")
        return word

    def _unexpected(self, wanted: str, token: _Token | None = None) -> Rejected:
        found = token or self._seen
        return _fault(self._text, found.at, f"expected {wanted}, found {found.shown}")


def _wanted_kind(fact: FactName, asked: str, given: str) -> str:
    """Which kind of literal goes with a fact and an operator."""
    if asked == "like":
        return "text"
    if asked in COMPARERS or fact.type in (FactType.NUMBER, FactType.TRUTH):
        return "number"
    return given if fact.type is FactType.TAG else "text"


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise _fault(text, at, f"`{text[at]}` does not begin anything that is known here")
        kind = str(match.lastgroup)
        yield _Token(kind=kind, text=match.group(kind), at=match.start(kind))
        at = match.end()
    yield _Token(kind="end", text="", at=len(text))


def _holds(asked: str, value: Value, literal: Value) -> bool:
    if asked == "like":
        return fnmatchcase(str(value), str(literal))
    if isinstance(literal, str):
        return str(value) == literal
    number = _number(value)
    if number is None:
        return False
    return COMPARERS[asked](number, literal) if asked in COMPARERS else number == literal


def _number(value: Value) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _fault(text: str, at: int, what: str) -> Rejected:
    return Rejected(
        f"A routing expression cannot be read, sign {at + 1}: {what}.\n"
        f"  {text}\n  {' ' * at}^\n"
        "docs/routing.md shows what can be said.",
        code="route_expression",
    )
