"""Why no association stood is told apart: what is refused for good, what only broke off."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from reporting.delivery import DeliveryPostponed, DeliveryRefused
from reporting.delivery.transport.association import Peer, _failure, context_for

PEER = Peer(
    ae_title="PACS",
    host="127.0.0.1",
    port=104,
    calling_ae_title="SMEARLINK",
    timeout_s=5.0,
    tls=None,
)
ACCEPTED = 0x00


def ended(answer: int | None, *, accepted: int = 0) -> Any:
    """An association of pynetdicom's that is not established."""
    context = context_for(Verification, "1.2.840.10008.1.2")
    return SimpleNamespace(
        is_rejected=False,
        acceptor=SimpleNamespace(
            primitive=None if answer is None else SimpleNamespace(result=answer)
        ),
        accepted_contexts=[context] * accepted,
    )


@pytest.mark.parametrize(
    ("association", "kind", "code"),
    [
        (ended(ACCEPTED), DeliveryRefused, "contexts_refused"),
        (ended(ACCEPTED, accepted=1), DeliveryPostponed, "peer_unreachable"),
        (ended(None), DeliveryPostponed, "peer_unreachable"),
    ],
)
def test_an_association_that_was_accepted_and_then_lost_is_tried_again(
    association: Any, kind: type[Exception], code: str
) -> None:
    failure = _failure(PEER, association)

    assert isinstance(failure, kind)
    assert failure.code == code
