"""Sends images by C-STORE, as an imaging device would: for `smearlink send` and the demo."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom import FileDataset
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from pipeline.errors import Rejected, RetryLater
from reporting.delivery.transport.pynetdicom_fixes import fix_reactor_pause

PEER_FORM = re.compile(
    r"(?P<ae>[ -\[\]-~]{1,16})@(?P<host>[A-Za-z0-9_.\-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})"
)
MOST_IN_ONE_ASSOCIATION = 128
SUCCESS = 0x0000
NOT_SUPPORTED = 0x0122
"""SOP class not supported (PS3.7 annex C); said in the receiver's place when it refuses a kind."""
CANNOT_ENCODE = 0xC000
"""Cannot understand (PS3.4 Table B.2-1); said in the receiver's place of what cannot be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """Where to send: AE title, host and port."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> PeerAddress:
        """Read `AET@HOST:PORT`; Rejected `peer_address` when it is none."""
        found = PEER_FORM.fullmatch(text)
        if found is None or not 1 <= int(found["port"]) <= 65535:
            raise Rejected(
                "Give the receiver as AET@HOST:PORT, for example SMEARLINK@127.0.0.1:11112",
                code="peer_address",
            )
        return cls(ae_title=found["ae"], host=found["host"].strip("[]"), port=int(found["port"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SentImage:
    """What the receiver answered to one image."""

    sop_instance_uid: str
    status: int
    """Of the C-STORE response (PS3.4 Table B.2-1)."""
    comment: str

    @property
    def is_stored(self) -> bool:
        """Success, or a warning: the receiver has it."""
        return self.status == SUCCESS or self.status & 0xF000 == 0xB000


def send_images(
    images: Iterable[FileDataset],
    peer: PeerAddress,
    *,
    calling_ae_title: str = "SMEARSEND",
    on_sent: Callable[[SentImage], None] = lambda sent: None,
) -> Iterator[SentImage]:
    """Send each image and give the receiver's answer.

    An image of a kind that the receiver does not take is refused alone. Raises RetryLater
    `peer_unreachable` when no association comes about or it breaks off; what was answered before
    then was given already.
    """
    for batch in _batches(images):
        yield from _send_batch(batch, peer, calling_ae_title, on_sent)


def _batches(images: Iterable[FileDataset]) -> Iterator[Sequence[FileDataset]]:
    """At most so many in one association that each kind of image gets a context of its own."""
    batch: list[FileDataset] = []
    for image in images:
        batch.append(image)
        if len(batch) == MOST_IN_ONE_ASSOCIATION:
            yield batch
            batch = []
    if batch:
        yield batch


def _send_batch(
    images: Sequence[FileDataset],
    peer: PeerAddress,
    calling_ae_title: str,
    on_sent: Callable[[SentImage], None],
) -> Iterator[SentImage]:
    entity = AE(ae_title=calling_ae_title)
    kinds = {(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in images}
    entity.requested_contexts = [build_context(*kind) for kind in sorted(kinds)]
    association = entity.associate(peer.host, peer.port, ae_title=peer.ae_title)
    if not association.is_established:
        raise _unreachable(peer, "refused the association or is not there")
    fix_reactor_pause(association)
    try:
        for image in images:
            sent = _store(association, image, peer)
            on_sent(sent)
            yield sent
    finally:
        association.release()


def _store(association: Association, image: FileDataset, peer: PeerAddress) -> SentImage:
    uid = str(image.SOPInstanceUID)
    kind = image.SOPClassUID, image.file_meta.TransferSyntaxUID
    accepted = {
        (one.abstract_syntax, *one.transfer_syntax) for one in association.accepted_contexts
    }
    if kind not in accepted:
        names = ", ".join(UID(one).name for one in kind)
        return SentImage(sop_instance_uid=uid, status=NOT_SUPPORTED, comment=f"not taken: {names}")
    try:
        answer = association.send_c_store(image)
    except RuntimeError as err:
        raise _unreachable(peer, "broke off the association") from err
    except (ValueError, AttributeError):
        comment = "its data set cannot be encoded as its file meta information says"
        return SentImage(sop_instance_uid=uid, status=CANNOT_ENCODE, comment=comment)
    if "Status" not in answer:
        raise _unreachable(peer, "did not answer")
    return SentImage(
        sop_instance_uid=uid,
        status=int(answer.Status),
        comment=str(answer.get("ErrorComment", "")),
    )


def _unreachable(peer: PeerAddress, what: str) -> RetryLater:
    return RetryLater(
        f"{peer.ae_title} at {peer.host}:{peer.port} {what}: check the address, the AE titles "
        "that it allows, and that it runs",
        code="peer_unreachable",
    )
