"""`smearlink serve` and `worker`: run the service until a signal stops it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from config.model import Settings
from config.settings import check_reload
from listener.cli.signals import Signals
from listener.observability.logging_setup import get_log, set_up_logging
from listener.process_memory import limit_heap, settle
from pipeline.errors import SmearlinkError

if TYPE_CHECKING:
    from listener.service import Service


def run_service(read_settings: Callable[[], Settings], *, listens: bool) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads destinations and routes again.

    A stop finishes work in progress within `service.stop_grace_s`; the rest stays queued.
    """
    limit_heap()
    settings = read_settings()
    set_up_logging(settings.service.log_level, settings.service.log_format)
    signals = Signals(reload=[signal.SIGHUP])
    # Only now: what is wrong with the settings is said before seconds of loading.
    from listener.service import running

    with running(settings, listens=listens) as service:
        _log_startup(service)
        settle()
        while signals.wait():
            service.reload(lambda: _reread(settings, read_settings))
    # Threads of a step that hangs would keep the process alive; their work is queued again.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _reread(old: Settings, read_settings: Callable[[], Settings]) -> Settings:
    """Read the settings again; on error, report why on stderr."""
    try:
        return check_reload(old, read_settings())
    except SmearlinkError as err:
        print(f"smearlink: {err.message}", file=sys.stderr, flush=True)  # noqa: T201
        raise


def _log_startup(service: Service) -> None:
    ports = {"dicom": service.dicom_port, "web": service.web_port}
    log = get_log("listener.cli.serve")
    for protocol, port in ports.items():
        if port is not None:
            log.info("listening", protocol=protocol, port=port)
    identity = service.classifier.identity
    calibration = identity.calibration
    log.info(
        "model_loaded",
        model_sha256=identity.sha256,
        execution_provider=identity.execution_provider,
        **({"calibration_sha256": calibration.sha256} if calibration else {}),
    )
