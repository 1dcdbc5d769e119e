"""Counts what happens to connections before anybody says who they are: no event for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

Counts = Mapping[str, int]
"""By what happened: dropped, refused_by_system, faults."""


class ConnectionCollector(Collector):
    """The counts of each port, asked for at each scrape."""

    def __init__(self, ports: Mapping[str, Callable[[], Counts]]) -> None:
        self._ports = ports

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One counter, by port and by what happened."""
        family = CounterMetricFamily(
            "smearlink_connections_closed_early",
            "Connections that ended before a request: dropped for newer ones, or not accepted",
            labels=["port", "reason"],
        )
        for port, counts in self._ports.items():
            for reason, count in counts().items():
                family.add_metric([port, reason], count)
        yield family
