"""Routes results to destinations: a site's rules as data, the facts they use, and why they match.

Facts about images are all values that occur among the images of a smear; facts about the outcome
are not known before it was analysed, and an answer then says what it depends on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydicom import Dataset
from pydicom.datadict import keyword_dict, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.uid import UID

from pipeline.domain import Grade, QualityFlag, SmearFindings
from pipeline.errors import Defect, Rejected
from pipeline.findings.smear_summary import referred_cell_count
from reporting.delivery.routing.expression import (
    TAG_PREFIX,
    Expression,
    FactName,
    Facts,
    FactType,
    Values,
    comparisons,
    parse,
)

PATIENT_GROUP = 0x0010
"""Rules may not ask who the patient is: their answers are shown and logged."""

NAMES: Mapping[str, FactName] = {
    "calling_ae": FactName(type=FactType.TEXT),
    "sop_class": FactName(type=FactType.TEXT),
    "modality": FactName(type=FactType.TEXT),
    "any_leukemic": FactName(type=FactType.TRUTH),
    "leukemic": FactName(type=FactType.NUMBER),
    "referred": FactName(type=FactType.NUMBER),
    "white_cells": FactName(type=FactType.NUMBER),
    "leukemic_fraction": FactName(type=FactType.NUMBER),
    "grade": FactName(type=FactType.TEXT, words=frozenset(Grade)),
    "quality": FactName(type=FactType.TEXT, words=frozenset(QualityFlag)),
}
"""What rules may ask besides `tag.<Keyword>`."""


class Verdict(StrEnum):
    """The answer of a rule for a smear."""

    MATCHES = "matches"
    DOES_NOT = "does not match"
    DEPENDS = "depends on the outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """Results of a smear for which `when` holds go to the destinations in `to`."""

    name: str
    when: str
    to: tuple[str, ...]
    expression: Expression = field(repr=False)

    @classmethod
    def parse(cls, name: str, when: str, to: Iterable[str]) -> RoutingRule:
        """Raises Rejected, with the place of the fault, for a rule that cannot be read."""
        try:
            expression = parse(when, vocabulary)
        except Rejected as err:
            raise Rejected(f"Route {name}: {err.message}", code=err.code) from err
        return cls(name=name, when=when, to=tuple(to), expression=expression)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFacts:
    """What rules are asked about one smear. Outcome facts are None before it was analysed."""

    calling_aes: frozenset[str]
    sop_classes: frozenset[str]
    modalities: frozenset[str]
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """Values by keyword, of the tags that the rules ask for and no others."""
    smear: SmearFindings | None = None

    def by_name(self) -> Facts:
        """The values of each name; a tag that no image has is known to have no value."""
        return {
            "calling_ae": tuple(sorted(filter(None, self.calling_aes))),
            "sop_class": tuple(sorted({*self.sop_classes, *map(_class_keyword, self.sop_classes)})),
            "modality": tuple(sorted(self.modalities)),
            **{f"{TAG_PREFIX}{keyword}": values for keyword, values in self.tags.items()},
            **_outcome(self.smear),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One question that a rule asks, and its answer; values of tags are not shown."""

    question: str
    answer: bool | None
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMatch:
    """What one rule says of a smear, and why."""

    rule: str
    when: str
    to: tuple[str, ...]
    verdict: Verdict
    reasons: tuple[Reason, ...]


def vocabulary(name: str) -> FactName:
    """The fact that a name in a rule refers to; LookupError with a sentence for an unknown one."""
    if name in NAMES:
        return NAMES[name]
    if not name.startswith(TAG_PREFIX):
        raise LookupError(f"there is no fact `{name}`.{_nearest(name, NAMES)}")
    keyword = name.removeprefix(TAG_PREFIX)
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"DICOM has no keyword `{keyword}`.{_nearest(keyword, keyword_dict)}")
    if tag >> 16 == PATIENT_GROUP:
        raise LookupError(f"`{keyword}` tells who the patient is, and rules may not ask that")
    return FactName(type=FactType.TAG)


def keywords_asked(rules: Iterable[RoutingRule]) -> frozenset[str]:
    """The tags, by keyword, that the rules ask for."""
    names = {one.name for rule in rules for one in comparisons(rule.expression)}
    return frozenset(name.removeprefix(TAG_PREFIX) for name in names if name.startswith(TAG_PREFIX))


def facts_of(
    rules: Iterable[RoutingRule],
    headers: Sequence[Dataset],
    *,
    calling_aes: Iterable[str],
    smear: SmearFindings | None = None,
) -> RouteFacts:
    """Read from the images' headers what the rules ask for."""
    keywords = sorted(keywords_asked(rules))
    return RouteFacts(
        calling_aes=frozenset(calling_aes),
        sop_classes=frozenset(_texts(headers, "SOPClassUID")),
        modalities=frozenset(_texts(headers, "Modality")),
        tags={keyword: _texts(headers, keyword) for keyword in keywords},
        smear=smear,
    )


def destinations_for(
    rules: Sequence[RoutingRule], facts: RouteFacts, all_destinations: Sequence[str]
) -> tuple[str, ...]:
    """Where the results of an analysed smear go: everywhere without rules, else where any says.

    The order is that of `all_destinations`. Raises Defect when the smear was not analysed.
    """
    if not rules:
        return tuple(all_destinations)
    matches = explain(rules, facts)
    if any(match.verdict is Verdict.DEPENDS for match in matches):
        raise Defect("A smear was routed before it was analysed.", code="routed_too_early")
    chosen = {to for match in matches if match.verdict is Verdict.MATCHES for to in match.to}
    return tuple(name for name in all_destinations if name in chosen)


def explain(rules: Sequence[RoutingRule], facts: RouteFacts) -> list[RuleMatch]:
    """What each rule says, with the answer to each of its questions."""
    known = facts.by_name()
    return [
        RuleMatch(
            rule=rule.name,
            when=rule.when,
            to=rule.to,
            verdict=_verdict(rule.expression.answer(known)),
            reasons=tuple(
                Reason(question=one.text, answer=one.answer(known), found=_shown(one.name, known))
                for one in comparisons(rule.expression)
            ),
        )
        for rule in rules
    ]


def _verdict(answer: bool | None) -> Verdict:
    if answer is None:
        return Verdict.DEPENDS
    return Verdict.MATCHES if answer else Verdict.DOES_NOT


def _outcome(smear: SmearFindings | None) -> dict[str, Values | None]:
    if smear is None:
        names = (
            "any_leukemic",
            "leukemic",
            "referred",
            "white_cells",
            "leukemic_fraction",
            "grade",
            "quality",
        )
        return dict.fromkeys(names)
    fraction = smear.leukemic_fraction
    return {
        "any_leukemic": (float(smear.leukemic_count > 0),),
        "leukemic": (float(smear.leukemic_count),),
        "referred": (float(referred_cell_count(smear)),),
        "white_cells": (float(smear.white_cells_counted),),
        "leukemic_fraction": () if fraction is None else (fraction.value,),
        "grade": (smear.grade.value,),
        "quality": tuple(sorted({flag for one in smear.fields for flag in one.quality.flags})),
    }


def _class_keyword(sop_class_uid: str) -> str:
    """`VLMicroscopicImageStorage`, as an alternative to the UID."""
    return UID(sop_class_uid).keyword


def _texts(headers: Iterable[Dataset], keyword: str) -> tuple[str, ...]:
    """The values of an attribute among the images, each once; sequences and bytes have none."""
    found: set[str] = set()
    for header in headers:
        value = header.get(keyword)
        values = value if isinstance(value, MultiValue | list) else [value]
        found.update(
            str(one) for one in values if not isinstance(one, Dataset | bytes | None) and f"{one}"
        )
    return tuple(sorted(found))


def _shown(name: str, known: Facts) -> str:
    values = known.get(name)
    if values is None:
        return "not known yet"
    if not values:
        return "no value"
    if name.startswith(TAG_PREFIX):
        return "a value"
    return ", ".join(f"{one:g}" if isinstance(one, float) else one for one in values)


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, [*known], n=1)
    return f" Did you mean `{close[0]}`?" if close else ""
