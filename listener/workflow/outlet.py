"""One destination as the workflow sees it: what goes there, how patiently it is tried."""

from __future__ import annotations

from dataclasses import dataclass

from listener.queue.jobs import delivery_queue
from reporting.delivery import Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationQueue:
    """A destination with its queue."""

    destination: Destination
    concurrency: int = 1
    rate_per_minute: int = 0
    """0 means as fast as it takes them."""
    max_tries: int = 8
    first_delay_s: float = 5.0
    max_delay_s: float = 3600.0
    commitment_timeout_s: float = 3600.0
    is_pseudonymous: bool = False
    """It gets results under pseudonyms, and never any other."""

    @property
    def name(self) -> str:
        return self.destination.name

    @property
    def queue(self) -> str:
        return delivery_queue(self.name)
