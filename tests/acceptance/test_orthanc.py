"""A real Orthanc takes, lists, shows, keeps, confirms and gives back every object of ours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import Any

import cv2
import numpy as np
import pytest
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

from listener.storage.commitment_reports import CommitmentReports
from listener.storage.inbox import Inbox
from reporting.delivery import (
    CommitmentReport,
    DeliveryPostponed,
    DeliveryRefused,
    Destination,
    Reporter,
)
from reporting.delivery.destinations.dicom_store import DicomDestination
from reporting.delivery.destinations.stow_rs import StowDestination
from reporting.results import DICOM_KINDS, ResultKind
from tests.acceptance.orthanc import ABSENT, AE_TITLE, LOOPBACK, REASON, Orthanc, running_orthanc
from tests.acceptance.phantom_sets import PhantomSet, make_phantom_set
from tests.certificates import Authority, make_authority
from tests.listener.peers import PATIENCE_S, listening

pytestmark = [pytest.mark.peers, pytest.mark.skipif(ABSENT, reason=REASON)]

PICTURES = (ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY)
DRAWN = (*PICTURES, ResultKind.SEGMENTATION)
"""What Orthanc's own pages can show; reports, states and annotations it only keeps."""


@pytest.fixture(scope="module")
def smear() -> PhantomSet:
    """On a slide with coordinates, so that every kind of object is there."""
    return make_phantom_set("slide_coordinates")


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(params=["c_store", "stow"])
def delivered(request: pytest.FixtureRequest, orthanc: Orthanc, smear: PhantomSet) -> Orthanc:
    """Orthanc with the whole set in it, by either way."""
    for patient in orthanc.get("/patients"):
        orthanc.rest.delete(f"/patients/{patient}").raise_for_status()
    destination: Destination = by_c_store(orthanc)
    if request.param == "stow":
        destination = StowDestination(name="pacs", url=orthanc.dicomweb_url)

    receipt = destination.deliver(smear.results)

    assert receipt.accepted == tuple(one.uid for one in smear.results)
    assert receipt.warnings == ()
    return orthanc


def by_c_store(orthanc: Orthanc, **changed: Any) -> DicomDestination:
    given = {"ae_title": AE_TITLE, "host": LOOPBACK, "port": orthanc.dicom_port, **changed}
    return DicomDestination(name="pacs", **given)


class TestTheWholeSet:
    def test_every_kind_is_listed_by_qido(self, delivered: Orthanc, smear: PhantomSet) -> None:
        client = DICOMwebClient(delivered.dicomweb_url)

        [study] = client.search_for_studies()
        listed = client.search_for_instances(study_instance_uid=study["0020000D"]["Value"][0])

        assert {one["00080018"]["Value"][0] for one in listed} == {one.uid for one in smear.results}
        assert {one.kind for one in smear.results} == DICOM_KINDS

    def test_series_say_research_use_only(self, delivered: Orthanc, smear: PhantomSet) -> None:
        client = DICOMwebClient(delivered.dicomweb_url)

        series = client.search_for_series(fields=["SeriesDescription"])

        segmentations = [one for one in smear.results if one.kind is ResultKind.SEGMENTATION]
        assert len(series) == len(DICOM_KINDS) - 1 + len(segmentations)
        assert all("RESEARCH USE ONLY" in one["0008103E"]["Value"][0] for one in series)

    def test_pictures_are_drawn_in_color(self, delivered: Orthanc, smear: PhantomSet) -> None:
        """Its JPEG decoder and ours agree to a shade or two."""
        for result in smear.results:
            if result.kind in PICTURES:
                shown, ours = _png(delivered.preview(result.uid)), _pixels(result.content)
                assert shown.shape == ours.shape
                assert np.abs(shown.astype(int) - ours).mean() < 2.0

    def test_each_segment_is_drawn(self, delivered: Orthanc, smear: PhantomSet) -> None:
        for result in smear.results:
            if result.kind is ResultKind.SEGMENTATION:
                for number, mask in enumerate(_pixels(result.content)):
                    shown = _png(delivered.preview(result.uid, frame=number))
                    np.testing.assert_array_equal(shown[..., 0] > 0, mask > 0)

    def test_datasets_come_back_as_they_went(self, delivered: Orthanc, smear: PhantomSet) -> None:
        """Orthanc writes a header of its own, so data sets are compared, not files."""
        for result in smear.results:
            assert _dataset(delivered.file(result.uid)) == _dataset(result.content)

    def test_pixels_come_back_by_wado(self, delivered: Orthanc, smear: PhantomSet) -> None:
        client = DICOMwebClient(delivered.dicomweb_url)

        for result in smear.results:
            if result.kind in DRAWN:
                back = _by_wado(client, result.content)
                np.testing.assert_array_equal(pixel_array(back), _pixels(result.content))

    def test_plain_pixels_are_the_picture(self, orthanc: Orthanc) -> None:
        """Without JPEG what a viewer gets is, pixel for pixel, what was drawn."""
        smear = make_phantom_set(fields=1, compress_images=False, width=960, height=720)

        by_c_store(orthanc).deliver(smear.results)

        client = DICOMwebClient(orthanc.dicomweb_url)
        for result in smear.results:
            if result.kind in PICTURES:
                ours = _pixels(result.content)
                np.testing.assert_array_equal(_png(orthanc.preview(result.uid)), ours)
                back = _by_wado(client, result.content)
                assert back.PhotometricInterpretation == "RGB"
                np.testing.assert_array_equal(pixel_array(back), ours)

    def test_a_replay_changes_nothing(self, delivered: Orthanc, smear: PhantomSet) -> None:
        before = delivered.get("/statistics")["CountInstances"]

        by_c_store(delivered).deliver(smear.results)

        assert delivered.get("/statistics")["CountInstances"] == before


class TestStorageCommitment:
    """PS3.4 Annex J; Orthanc reports on an association of its own, to our listener."""

    def test_it_confirms_what_it_keeps(self, smear: PhantomSet, tmp_path: Path) -> None:
        with committing(tmp_path) as (orthanc, reports):
            pacs = by_c_store(orthanc, storage_commitment=True, ledger=reports.shelf)
            receipt = pacs.deliver(smear.results)

            assert receipt.awaits_commitment
            assert receipt.warnings == ()
            report = reports.wait_for(receipt.transaction_uid)

        assert sorted(report.committed) == sorted(one.uid for one in smear.results)
        assert report.failed == ()
        assert reports.shelf.find(receipt.transaction_uid) == report

    def test_it_disowns_what_it_lost(self, smear: PhantomSet, tmp_path: Path) -> None:
        with committing(tmp_path) as (orthanc, reports):
            pacs = by_c_store(orthanc, storage_commitment=True, ledger=reports.shelf)
            first = pacs.deliver(smear.results)
            reports.wait_for(first.transaction_uid)
            lost = smear.results[0].uid
            orthanc.delete(lost)

            again = pacs.request_commitment(smear.results)

            report = reports.wait_for(again.transaction_uid)

        assert again.transaction_uid != first.transaction_uid
        assert [one.uid for one in report.failed] == [lost]
        assert lost not in report.committed


class TestTls:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return make_authority(tmp_path / "ca")

    def test_both_ends_show_certificates(
        self, authority: Authority, smear: PhantomSet, tmp_path: Path
    ) -> None:
        with self.secured(tmp_path, authority) as orthanc:
            pacs = by_c_store(orthanc, tls=authority.issue("smearlink"))

            receipt = pacs.deliver(smear.results)

            assert orthanc.get("/statistics")["CountInstances"] == len(receipt.accepted)

    def test_a_stranger_without_a_certificate_gets_nothing_in(
        self, authority: Authority, smear: PhantomSet, tmp_path: Path
    ) -> None:
        stranger = make_authority(tmp_path / "other", "Other CA").issue("stranger")
        believing = type(stranger)(
            certificate=stranger.certificate,
            private_key=stranger.private_key,
            ca_certificates=authority.ca_certificates,
        )
        with self.secured(tmp_path, authority) as orthanc:
            with pytest.raises((DeliveryPostponed, DeliveryRefused)):
                by_c_store(orthanc, tls=believing, timeout_s=5.0).deliver(smear.results)

            assert orthanc.get("/statistics")["CountInstances"] == 0

    @contextmanager
    def secured(self, folder: Path, authority: Authority) -> Iterator[Orthanc]:
        own = authority.issue("orthanc")
        with running_orthanc(
            folder / "orthanc",
            modalities={"smearlink": ("SMEARLINK", LOOPBACK, 104)},
            DicomTlsEnabled=True,
            DicomTlsCertificate=str(own.certificate),
            DicomTlsPrivateKey=str(own.private_key),
            DicomTlsTrustedCertificates=str(own.ca_certificates),
        ) as orthanc:
            yield orthanc


class _Reports:
    """What our listener was told, and the shelf on which it keeps it."""

    def __init__(self, folder: Path) -> None:
        self.shelf = CommitmentReports(folder)
        self._came = Condition()

    def keep(self, _: Reporter, report: CommitmentReport) -> None:
        with self._came:
            self.shelf.keep(report, destinations=("pacs",))
            self._came.notify_all()

    def wait_for(self, transaction_uid: str) -> CommitmentReport:
        with self._came:
            self._came.wait_for(
                lambda: self.shelf.find(transaction_uid) is not None, timeout=PATIENCE_S
            )
        report = self.shelf.find(transaction_uid)
        assert report is not None, "Orthanc did not report"
        return report


@contextmanager
def committing(folder: Path) -> Iterator[tuple[Orthanc, _Reports]]:
    """Orthanc that knows where our listener is, and what it reports there."""
    reports = _Reports(folder / "commitments")
    with (
        listening(Inbox(folder / "inbox"), on_commitment=reports.keep) as listener,
        running_orthanc(
            folder / "orthanc", modalities={"smearlink": ("SMEARLINK", LOOPBACK, listener.port)}
        ) as orthanc,
    ):
        yield orthanc, reports


def _by_wado(client: DICOMwebClient, content: bytes) -> Dataset:
    """What WADO-RS gives back of an object, as it is stored."""
    header = _dataset(content)
    return client.retrieve_instance(
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        sop_instance_uid=header.SOPInstanceUID,
        media_types=(("application/dicom", "*"),),
    )


def _dataset(content: bytes) -> Dataset:
    """Without the header of the file."""
    return Dataset(dcmread(io.BytesIO(content)))


def _pixels(content: bytes) -> np.ndarray:
    return pixel_array(dcmread(io.BytesIO(content)))


def _png(content: bytes) -> np.ndarray:
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    return cv2.cvtColor(shown, cv2.COLOR_BGR2RGB)
