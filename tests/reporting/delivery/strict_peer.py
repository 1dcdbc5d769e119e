"""A peer that answers to its own name alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.uid import UID
from pynetdicom import AE

from listener.demo.mock_servers import LOOPBACK

AE_TITLE = "STANDIN"


@contextmanager
def strict_peer(sop_class: UID) -> Iterator[int]:
    """Its port; it rejects a called AE title that is not its own, for good."""
    entity = AE(ae_title=AE_TITLE)
    entity.require_called_aet = True
    entity.add_supported_context(sop_class)
    server = entity.start_server((LOOPBACK, 0), block=False)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
