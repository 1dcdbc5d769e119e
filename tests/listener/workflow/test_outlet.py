"""A destination has a queue of its own."""

from __future__ import annotations

from listener.queue.jobs import delivery_queue
from listener.workflow.outlet import DestinationQueue
from tests.listener.house import Shelf


def test_each_destination_has_a_queue_of_its_own() -> None:
    queues = {DestinationQueue(destination=Shelf(name=name)).queue for name in ("pacs", "ehr")}

    assert queues == {delivery_queue("pacs"), delivery_queue("ehr")}
    assert len(queues) == 2
