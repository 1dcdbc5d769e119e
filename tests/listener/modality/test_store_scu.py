"""Sending as an imaging device does, and saying what became of each image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import FileDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from listener.demo.mock_servers import MockPacs
from listener.modality.store_scu import (
    CANNOT_ENCODE,
    NOT_SUPPORTED,
    PeerAddress,
    SentImage,
    send_images,
)
from listener.storage.inbox import Inbox
from pipeline.errors import Rejected, RetryLater, SmearlinkError
from reporting.delivery.transport.tls import TlsFiles
from tests.acceptance.standins import closed_port
from tests.builders import build_image, every_kind
from tests.certificates import make_authority
from tests.listener.peers import listening


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SMEARLINK",
        "SMEARLINK@host",
        "@host:104",
        "SMEARLINK@host:0",
        "SMEARLINK@host:65536",
        "SMEARLINK@host:port",
        "SEVENTEENLETTERSX@host:104",
        "BACK\\\\SLASH@host:104",
        "SMEARLINK@ho st:104",
        "SMEARLINK@host:104 ",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Rejected, match=r"SMEARLINK@127.0.0.1:11112") as refusal:
        PeerAddress.parse(text)

    assert refusal.value.code == "peer_address"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("A B@pacs.example.org:104", "pacs.example.org"),
        ("PACS@10.0.0.1:11112", "10.0.0.1"),
        ("PACS@[::1]:104", "::1"),
    ],
)
def test_an_address_is_read(text: str, host: str) -> None:
    peer = PeerAddress.parse(text)

    assert peer.host == host
    assert peer.port in (104, 11112)


@given(st.integers(0, 0xFFFF))
def test_only_success_and_warnings_mean_that_the_receiver_has_it(status: int) -> None:
    sent = SentImage(sop_instance_uid="1.2", status=status, comment="")

    assert sent.is_stored == (status == 0 or 0xB000 <= status <= 0xBFFF)


def test_nobody_there_is_said_with_what_to_check() -> None:
    peer = PeerAddress(ae_title="PACS", host="127.0.0.1", port=closed_port())

    with pytest.raises(RetryLater, match=r"Nothing listens at .* check the address") as refusal:
        list(send_images([build_image()], peer))

    assert refusal.value.code == "peer_unreachable"


def test_each_way_in_which_no_association_comes_about_has_its_own_message(
    tmp_path: Path,
) -> None:
    """A wrong name, a closed port, a refused AE title, a wrong one, and TLS are told apart."""
    files = make_authority(tmp_path / "ca").issue("listener")
    others = make_authority(tmp_path / "others", "Other CA").issue("sender")
    trusted = TlsFiles(ca_certificates=files.ca_certificates)
    tls = {"enabled": True, "certificate": files.certificate, "private_key": files.private_key}
    open_tls = {**tls, "require_client_certificate": False}
    closed_tls = {**tls, "ca_certificates": files.ca_certificates}

    said = {
        "unknown host": _reason(PeerAddress(ae_title="PACS", host="no.invalid", port=104)),
        "closed port": _reason(_peer(closed_port())),
    }
    with listening(Inbox(tmp_path / "a"), allowed_calling_aes=["SLIDECAM"]) as listener:
        said["calling AE"] = _reason(_peer(listener.port))
        said["called AE"] = _reason(_peer(listener.port, "OTHER"), calling_ae_title="SLIDECAM")
        said["no TLS there"] = _reason(_peer(listener.port), tls=trusted)
    with listening(Inbox(tmp_path / "b"), tls=open_tls) as listener:
        said["untrusted"] = _reason(_peer(listener.port), tls=TlsFiles())
        said["TLS expected"] = _reason(_peer(listener.port))
    with listening(Inbox(tmp_path / "c"), tls=closed_tls) as listener:
        said["no certificate"] = _reason(_peer(listener.port), tls=trusted)
        unknown = replace(others, ca_certificates=files.ca_certificates)
        said["unknown certificate"] = _reason(_peer(listener.port), tls=unknown)

    expected = {
        "unknown host": "no address",
        "closed port": "Nothing listens",
        "calling AE": "Calling AE title not recognised",
        "called AE": "Called AE title not recognised",
        "no TLS there": "refuses TLS",
        "untrusted": "--ca",
        "TLS expected": "--tls",
        "no certificate": "--cert",
        "unknown certificate": "--cert",
    }
    assert {name: text for name, text in expected.items() if text not in said[name]} == {}
    assert len(set(said.values())) == len(said)


def _reason(peer: PeerAddress, **options: Any) -> str:
    with pytest.raises(SmearlinkError) as caught:
        list(send_images([build_image()], peer, **options))
    return caught.value.message


@pytest.mark.parametrize("shows_certificate", [True, False])
def test_images_are_sent_through_tls(tmp_path: Path, shows_certificate: bool) -> None:
    files = make_authority(tmp_path / "ca").issue("listener")
    tls = {"enabled": True, "certificate": files.certificate, "private_key": files.private_key}
    if shows_certificate:
        tls["ca_certificates"] = files.ca_certificates
    else:
        tls["require_client_certificate"] = False
    ours = files if shows_certificate else TlsFiles(ca_certificates=files.ca_certificates)

    with listening(Inbox(tmp_path / "in"), tls=tls) as listener:
        (sent,) = send_images([build_image()], _peer(listener.port), tls=ours)

    assert sent.is_stored


def test_a_kind_that_nobody_takes_is_refused_alone_even_when_it_comes_first(
    tmp_path: Path,
) -> None:
    images = [build_image(number=number) for number in (1, 2, 3)]
    images[0].SOPClassUID = images[2].SOPClassUID = EnhancedMRImageStorage

    with listening(Inbox(tmp_path)) as listener:
        sent = list(send_images(images, _peer(listener.port)))

    assert [one.status for one in sent] == [NOT_SUPPORTED, 0, NOT_SUPPORTED]


def test_one_image_is_in_memory_at_a_time(tmp_path: Path) -> None:
    made: list[int] = []

    def images() -> Iterator[FileDataset]:
        for number in range(1, 6):
            made.append(number)
            yield build_image(number=number)

    with listening(Inbox(tmp_path)) as listener:
        for count, sent in enumerate(send_images(images(), _peer(listener.port)), start=1):
            assert sent.is_stored
            assert len(made) == count


def test_a_kind_that_the_receiver_does_not_take_stops_no_other_image(tmp_path: Path) -> None:
    images = [build_image(number=number) for number in (1, 2, 3)]
    images[1].SOPClassUID = EnhancedMRImageStorage

    with listening(Inbox(tmp_path)) as listener:
        sent = list(send_images(images, _peer(listener.port)))

    assert [one.status for one in sent] == [0, NOT_SUPPORTED, 0]
    assert "Enhanced MR" in sent[1].comment


def test_the_receivers_own_refusal_comes_with_its_reason(tmp_path: Path) -> None:
    slide = build_image(sop_class=VLWholeSlideMicroscopyImageStorage)

    with listening(Inbox(tmp_path)) as listener:
        (sent,) = send_images([slide], _peer(listener.port))

    assert not sent.is_stored
    assert "single smear fields" in sent.comment


def test_a_data_set_that_belies_its_header_is_refused_alone(tmp_path: Path) -> None:
    image = build_image()
    image.Rows = "not a number"

    with MockPacs(tmp_path) as pacs:
        sent = list(send_images([image, build_image(number=2)], _peer(pacs.port, pacs.ae_title)))

    assert [one.status for one in sent] == [CANNOT_ENCODE, 0]


def test_every_kind_that_we_take_can_be_sent(tmp_path: Path) -> None:
    images = [image for _, image in every_kind()]
    seen: list[SentImage] = []

    with listening(Inbox(tmp_path)) as listener:
        sent = list(send_images(images, _peer(listener.port), on_sent=seen.append))

    assert all(one.is_stored for one in sent)
    assert seen == sent
    assert [one.sop_instance_uid for one in sent] == [str(one.SOPInstanceUID) for one in images]


def test_more_images_than_an_association_has_contexts_for(tmp_path: Path) -> None:
    images = (build_image(number=number) for number in range(1, 131))

    with MockPacs(tmp_path) as pacs:
        sent = list(send_images(images, _peer(pacs.port, pacs.ae_title)))

    assert len(sent) == len(pacs.stored) == 130


def _peer(port: int, ae_title: str = "SMEARLINK") -> PeerAddress:
    return PeerAddress(ae_title=ae_title, host="127.0.0.1", port=port)
