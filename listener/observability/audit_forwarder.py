"""Sends this machine's chain of the trail to an audit repository, from where it stopped last.

The trail on disk is the truth and waits for nobody: a repository that is down is caught up with
later. The place reached is kept in a file beside the trail; its lock lets one process send.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from listener.observability.logging_setup import get_log
from listener.queue.backoff import next_delay_s
from pipeline.errors import SmearlinkError
from reporting.audit.dicom_export import dicom_message
from reporting.audit.tail import Place, read_on
from reporting.audit.trail import Outcome
from reporting.delivery.transport.syslog import SyslogMessage, SyslogReceiver
from reporting.durable_files import make_folder, publish_file, take_lock

FIRST_DELAY_S = 2.0
LONGEST_DELAY_S = 300.0
LOOK_EVERY_S = 1.0

_log = get_log("listener.observability.audit_forwarder")


class AuditForwarder:
    """A thread that follows the chain. Use as a context manager: the end sends what is left."""

    def __init__(
        self,
        *,
        folder: Path,
        chain: str,
        place_file: Path,
        receiver: SyslogReceiver,
        jitter: Callable[[], float],
    ) -> None:
        self._folder, self._chain = folder, chain
        self._place_file = place_file
        self._receiver = receiver
        self._jitter = jitter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-syslog", daemon=True)

    def send_new(self) -> int:
        """Send what is new, and remember how far; how many events. 0 when another process does.

        Raises DeliveryPostponed, DeliveryRefused, or OSError when the disk gives out.
        """
        sent = 0
        with self._alone() as is_ours:
            place = self._place() if is_ours else None
            while place is not None:
                events, after = read_on(self._folder, self._chain, place)
                if after == place:
                    break
                sent += self._receiver.send(self._message(event) for event in events)
                self._keep(after)
                place = after
        return sent

    def __enter__(self) -> AuditForwarder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        while True:
            is_last = self._stop.is_set()
            failures = 0 if self._tried() else failures + 1
            is_stopped = self._stop.wait(self._pause_s(failures))
            if is_last or (is_stopped and failures):
                return

    def _tried(self) -> bool:
        try:
            self.send_new()
        except SmearlinkError as err:
            _log.warning("audit_not_forwarded", code=err.code)
            return False
        except Exception as err:  # noqa: BLE001 - the boundary of a loop; the next round tries again
            _log.warning("audit_not_forwarded", error_type=type(err).__name__)
            return False
        return True

    def _pause_s(self, failures: int) -> float:
        if not failures:
            return LOOK_EVERY_S
        return next_delay_s(
            attempt=failures,
            first_s=FIRST_DELAY_S,
            longest_s=LONGEST_DELAY_S,
            asked_s=None,
            jitter=self._jitter,
        )

    def _message(self, event: Mapping[str, Any]) -> SyslogMessage:
        return SyslogMessage(
            time=event["time"],
            is_failure=event["outcome"] != Outcome.SUCCESS,
            content=dicom_message(event, source=self._chain),
        )

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        make_folder(self._place_file.parent)
        try:
            lock = take_lock(self._place_file.with_suffix(".lock"), is_blocking=False)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(lock)

    def _place(self) -> Place:
        """Where the last process stopped; a file that cannot be read begins anew."""
        try:
            kept = json.loads(self._place_file.read_bytes())
            return Place(file=str(kept["file"]), offset=int(kept["offset"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Place()

    def _keep(self, place: Place) -> None:
        """Called under the lock: what lies among the drafts is of a process that was killed."""
        content = json.dumps({"file": place.file, "offset": place.offset}).encode()
        drafts = self._place_file.with_suffix(".tmp")
        make_folder(drafts)
        for abandoned in drafts.iterdir():
            abandoned.unlink(missing_ok=True)
        publish_file(self._place_file, content, tmp=drafts)


def place_file_of(data_dir: Path, chain: str) -> Path:
    """Where the place reached in a chain is kept."""
    return data_dir / f"audit-syslog-{re.sub(r'[^A-Za-z0-9_.-]', '-', chain)}.json"
