"""Rules, the facts that they ask for, and why they match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, VLMicroscopicImageStorage

from pipeline.domain import Call, QualityFlag, SmearFindings
from pipeline.errors import Defect, Rejected
from reporting.delivery.routing.rules import (
    RoutingRule,
    Verdict,
    destinations_for,
    explain,
    facts_of,
    keywords_asked,
)
from tests.findings import make_field_findings, make_smear_findings

ALL = ("pacs", "ehr", "research")
PATIENT = "Featherstonehaugh"


def rule(when: str, *to: str, name: str = "rule") -> RoutingRule:
    return RoutingRule.parse(name, when, to or ("pacs",))


def header(**changed: object) -> Dataset:
    found = Dataset()
    found.SOPClassUID = VLMicroscopicImageStorage
    found.Modality = "GM"
    found.PatientName = PATIENT
    found.InstitutionName = "North"
    found.BodyPartExamined = "BLOOD"
    found.ImageType = ["ORIGINAL", "PRIMARY"]
    for keyword, value in changed.items():
        setattr(found, keyword, value)
    return found


def verdict(when: str, smear: SmearFindings | None = None, *headers: Dataset) -> Verdict:
    rules = [rule(when)]
    facts = facts_of(rules, headers or [header()], calling_aes=["SCANNER1"], smear=smear)
    return explain(rules, facts)[0].verdict


class TestFaults:
    def test_the_rule_is_named(self) -> None:
        with pytest.raises(Rejected, match="Route night") as told:
            rule("any_leukaemic", name="night")

        assert "any_leukemic" in told.value.message

    def test_a_keyword_that_dicom_does_not_have(self) -> None:
        with pytest.raises(Rejected, match="Did you mean `BodyPartExamined`"):
            rule("tag.BodyPartExamind == 'BLOOD'")

    @pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "PatientBirthDate"])
    def test_who_the_patient_is_may_not_be_asked(self, keyword: str) -> None:
        with pytest.raises(Rejected, match="rules may not ask"):
            rule(f"tag.{keyword} == '{PATIENT}'")

    def test_a_grade_that_does_not_exist(self) -> None:
        with pytest.raises(Rejected, match="none_seen"):
            rule("grade == 'severe'")

    def test_a_smear_is_not_routed_before_it_was_analysed(self) -> None:
        rules = [rule("any_leukemic")]

        with pytest.raises(Defect):
            destinations_for(rules, facts_of(rules, [header()], calling_aes=[]), ALL)


class TestImages:
    @pytest.mark.parametrize(
        ("when", "expected"),
        [
            ("calling_ae == 'SCANNER1'", Verdict.MATCHES),
            ("calling_ae like 'SCAN*'", Verdict.MATCHES),
            ("calling_ae == 'OTHER'", Verdict.DOES_NOT),
            ("sop_class == 'VLMicroscopicImageStorage'", Verdict.MATCHES),
            (f"sop_class == '{VLMicroscopicImageStorage}'", Verdict.MATCHES),
            (f"sop_class != '{SecondaryCaptureImageStorage}'", Verdict.MATCHES),
            ("modality in ['GM', 'SM']", Verdict.MATCHES),
            ("tag.BodyPartExamined == 'BLOOD'", Verdict.MATCHES),
            ("'PRIMARY' in tag.ImageType", Verdict.MATCHES),
            ("tag.Manufacturer == 'X'", Verdict.DOES_NOT),
            ("tag.SpecimenDescriptionSequence == 'X'", Verdict.DOES_NOT),
        ],
    )
    def test_what_the_header_says(self, when: str, expected: Verdict) -> None:
        assert verdict(when) is expected

    def test_one_image_of_the_smear_is_enough(self) -> None:
        images = (header(), header(Modality="SM"))

        assert verdict("modality == 'SM'", None, *images) is Verdict.MATCHES

    def test_only_the_tags_that_are_asked_for_are_read(self) -> None:
        rules = [rule("tag.InstitutionName == 'North'")]

        facts = facts_of(rules, [header()], calling_aes=[])

        assert keywords_asked(rules) == {"InstitutionName"}
        assert facts.tags == {"InstitutionName": ("North",)}
        assert PATIENT not in repr(facts)


class TestOutcome:
    def test_it_is_not_known_before_the_analysis(self) -> None:
        assert verdict("any_leukemic") is Verdict.DEPENDS
        assert verdict("modality == 'XX' and any_leukemic") is Verdict.DOES_NOT

    @pytest.mark.parametrize(
        ("calls", "when", "expected"),
        [
            ((Call.LEUKEMIC, Call.NORMAL), "any_leukemic", Verdict.MATCHES),
            ((Call.NORMAL,), "any_leukemic", Verdict.DOES_NOT),
            ((Call.LEUKEMIC, Call.NORMAL), "leukemic_fraction >= 0.5", Verdict.MATCHES),
            ((Call.REFERRED, Call.NORMAL), "referred", Verdict.MATCHES),
            ((Call.REFERRED, Call.NORMAL), "referred > 1", Verdict.DOES_NOT),
            ((Call.NORMAL,) * 3, "white_cells == 3 and leukemic == 0", Verdict.MATCHES),
        ],
    )
    def test_what_was_found(self, calls: tuple[Call, ...], when: str, expected: Verdict) -> None:
        smear = make_smear_findings([make_field_findings(calls=calls)])

        assert verdict(when, smear) is expected

    def test_the_quality_of_any_field(self) -> None:
        blurred = make_field_findings(flags=frozenset({QualityFlag.OUT_OF_FOCUS}), is_usable=False)
        smear = make_smear_findings([blurred])

        assert verdict("'out_of_focus' in quality", smear) is Verdict.MATCHES
        assert verdict("quality == 'empty'", smear) is Verdict.DOES_NOT

    def test_the_grade(self) -> None:
        smear = make_smear_findings()

        assert verdict(f"grade == '{smear.grade}'", smear) is Verdict.MATCHES


class TestDestinations:
    def test_without_rules_everything_goes_everywhere(self) -> None:
        facts = facts_of([], [header()], calling_aes=[], smear=make_smear_findings())

        assert destinations_for([], facts, ALL) == ALL

    def test_every_matching_rule_counts(self) -> None:
        rules = [rule("", "research"), rule("modality == 'GM'", "pacs"), rule("false", "ehr")]
        facts = facts_of(rules, [header()], calling_aes=[], smear=make_smear_findings())

        assert destinations_for(rules, facts, ALL) == ("pacs", "research")

    @given(st.permutations(["research", "pacs", "ehr"]))
    def test_the_order_of_rules_does_not_matter(self, order: list[str]) -> None:
        rules = [rule("true", one) for one in order]
        facts = facts_of(rules, [header()], calling_aes=[], smear=make_smear_findings())

        assert destinations_for(rules, facts, ALL) == ALL


def test_an_explanation_shows_each_question_and_no_value_of_a_tag() -> None:
    rules = [rule("calling_ae == 'OTHER' or tag.InstitutionName == 'North' and any_leukemic")]
    facts = facts_of(rules, [header()], calling_aes=["SCANNER1"])

    (match,) = explain(rules, facts)

    told = [(one.question, one.answer, one.found) for one in match.reasons]
    assert match.verdict is Verdict.DEPENDS
    assert told == [
        ("calling_ae == 'OTHER'", False, "SCANNER1"),
        ("tag.InstitutionName == 'North'", True, "a value"),
        ("any_leukemic", None, "not known yet"),
    ]
