"""Connections that came to nothing are numbers of each port."""

from __future__ import annotations

from listener.observability.connection_metrics import ConnectionCollector
from listener.observability.metrics import Metrics


def test_each_port_and_reason_is_a_counter() -> None:
    metrics = Metrics(software_version="1")
    metrics.register(ConnectionCollector({"dicom": lambda: {"dropped": 7}}))

    text = metrics.expose().decode()

    assert 'smearlink_connections_closed_early_total{port="dicom",reason="dropped"} 7.0' in text
