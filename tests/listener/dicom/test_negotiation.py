"""Who is let in, by which of the standard's words others are turned away, and what is agreed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.pdu import A_ASSOCIATE_AC

from listener.dicom.ae_title_access import (
    AccessPolicy,
    Caller,
    PeerBinding,
    Rejection,
    rejection_for,
)
from listener.dicom.associate_request import AssociateRequest, parse_request
from listener.dicom.negotiation import IMAGE_SOP_CLASSES, TRANSFER_SYNTAXES, accept
from listener.dicom.upper_layer import ProtocolViolation
from pipeline.decoding.frames import ENCAPSULATED_SYNTAXES, NATIVE_SYNTAXES
from tests.listener.peers import association_request

REQUEST = association_request(SecondaryCaptureImageStorage, calling="SCOPE1")
OPEN = AccessPolicy()


def caller(**changed: str) -> Caller:
    given = {"ae_title": "SCOPE1", "address": "10.1.2.3", "certificate_subject": "", **changed}
    return Caller(**given)


def request(data: bytes = REQUEST) -> AssociateRequest:
    return parse_request(data)


class TestNoRequest:
    @given(data=st.binary(max_size=300))
    def test_any_bytes_are_refused_or_a_request(self, data: bytes) -> None:
        said = b"\1\0" + len(data).to_bytes(4, "big") + data
        try:
            rejection_for(request(said), caller(), OPEN)
        except ProtocolViolation as err:
            assert err.code == "protocol_broken"

    @pytest.mark.parametrize("kept", [6, 40, 74, 80])
    def test_a_request_that_breaks_off(self, kept: int) -> None:
        """Without its application context at the latest it is turned away."""
        try:
            refusal = rejection_for(request(REQUEST[:kept]), caller(), OPEN)
        except ProtocolViolation:
            return

        assert refusal is Rejection.APPLICATION_CONTEXT_UNKNOWN


class TestWhoIsTurnedAway:
    def test_another_version_of_the_protocol(self) -> None:
        data = REQUEST[:6] + b"\0\2" + REQUEST[8:]

        assert rejection_for(request(data), caller(), OPEN) is Rejection.PROTOCOL_VERSION_UNKNOWN

    def test_another_application_context(self) -> None:
        data = REQUEST.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9")

        assert rejection_for(request(data), caller(), OPEN) is Rejection.APPLICATION_CONTEXT_UNKNOWN

    def test_who_calls_us_by_another_name(self) -> None:
        policy = AccessPolicy(called_aes=frozenset({"OTHER"}))

        assert rejection_for(request(), caller(), policy) is Rejection.CALLED_AE_UNKNOWN

    def test_who_is_not_on_the_list(self) -> None:
        policy = AccessPolicy(calling_aes=frozenset({"SCOPE2"}))

        assert rejection_for(request(), caller(), policy) is Rejection.CALLING_AE_UNKNOWN

    @pytest.mark.parametrize(
        ("address", "subject", "is_welcome"),
        [
            ("10.1.2.3", "CN=scope1", True),
            ("10.1.2.3", "", False),
            ("10.1.2.3", "CN=scope2", False),
            ("192.0.2.1", "CN=scope1", False),
        ],
    )
    def test_a_name_tied_to_address_and_certificate(
        self, address: str, subject: str, *, is_welcome: bool
    ) -> None:
        binding = PeerBinding(
            ae_title="SCOPE1",
            networks=(ip_network("10.0.0.0/8"),),
            certificate_subject="CN=scope1",
        )
        someone = caller(address=address, certificate_subject=subject)

        refusal = rejection_for(request(), someone, AccessPolicy(bindings=(binding,)))

        assert refusal is (None if is_welcome else Rejection.CALLING_AE_UNKNOWN)

    def test_one_tie_of_several_is_enough(self) -> None:
        bindings = tuple(
            PeerBinding(ae_title="SCOPE1", networks=(ip_network(network),))
            for network in ("192.0.2.0/24", "10.1.2.3/32")
        )

        assert rejection_for(request(), caller(), AccessPolicy(bindings=bindings)) is None


class TestWhoHasProvedIt:
    NETWORK = (ip_network("10.0.0.0/8"),)

    @pytest.mark.parametrize(
        ("bindings", "bound"),
        [
            ([], set()),
            ([PeerBinding(ae_title="PACS")], set()),
            ([PeerBinding(ae_title="PACS", networks=NETWORK)], {"PACS"}),
            ([PeerBinding(ae_title="PACS", certificate_subject="CN=pacs")], {"PACS"}),
            (
                [PeerBinding(ae_title="PACS", networks=NETWORK), PeerBinding(ae_title="PACS")],
                set(),
            ),
            (
                [PeerBinding(ae_title="PACS", networks=NETWORK), PeerBinding(ae_title="SCOPE")],
                {"PACS"},
            ),
        ],
    )
    def test_a_binding_that_names_nothing_proves_nothing(
        self, bindings: list[PeerBinding], bound: set[str]
    ) -> None:
        assert AccessPolicy(bindings=tuple(bindings)).bound_aes == bound


class TestWhatIsAgreed:
    @pytest.mark.parametrize("sop_class", IMAGE_SOP_CLASSES, ids=lambda one: one.name)
    @pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda one: one.name)
    def test_every_class_in_every_syntax(self, sop_class: UID, syntax: UID) -> None:
        agreement = accept(request(association_request(sop_class, syntax)), max_pdu_bytes=16384)

        assert agreement.contexts[1].abstract_syntax == sop_class
        assert agreement.contexts[1].transfer_syntax == syntax

    @pytest.mark.parametrize(
        ("sop_class", "syntax"),
        [
            (CTImageStorage, ExplicitVRLittleEndian),
            (SecondaryCaptureImageStorage, UID("1.2.276.0.7230010.3.4.99")),
        ],
    )
    def test_an_unknown_class_or_syntax_gets_no_context(self, sop_class: UID, syntax: UID) -> None:
        agreement = accept(request(association_request(sop_class, syntax)), max_pdu_bytes=16384)

        assert agreement.contexts == {}

    def test_the_acceptance_announces_our_pdu_size(self) -> None:
        acceptance = A_ASSOCIATE_AC()
        acceptance.decode(accept(request(), max_pdu_bytes=131072).reply)

        assert acceptance.user_information.maximum_length == 131072

    def test_what_is_agreed_can_be_decoded(self) -> None:
        """A syntax that is negotiated and then not read would park every image."""
        assert set(TRANSFER_SYNTAXES) == NATIVE_SYNTAXES | ENCAPSULATED_SYNTAXES
