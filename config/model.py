"""The settings model: every section, and the paths that follow from them."""

from __future__ import annotations

import platform
import re
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from platformdirs import user_data_path
from pydantic import Field

from config.destinations import DestinationSettings, RouteSettings
from config.sections import (
    AuditSettings,
    ConsoleSettings,
    DatabaseSettings,
    DicomSettings,
    ImageSettings,
    ModelSettings,
    PseudonymSettings,
    QueueSettings,
    ResultsSettings,
    RetentionSettings,
    ReviewSettings,
    Section,
    ServiceSettings,
    SmearSettings,
    WebSettings,
)


class Settings(Section):
    """Everything that a site may change."""

    service: ServiceSettings = ServiceSettings()
    dicom: DicomSettings = DicomSettings()
    image: ImageSettings = ImageSettings()
    smear: SmearSettings = SmearSettings()
    review: ReviewSettings = ReviewSettings()
    model: ModelSettings = ModelSettings()
    results: ResultsSettings = ResultsSettings()
    pseudonyms: PseudonymSettings = PseudonymSettings()
    database: DatabaseSettings = DatabaseSettings()
    queue: QueueSettings = QueueSettings()
    audit: AuditSettings = AuditSettings()
    web: WebSettings = WebSettings()
    console: ConsoleSettings = ConsoleSettings()
    retention: RetentionSettings = RetentionSettings()
    destinations: tuple[DestinationSettings, ...] = Field(default=(), alias="destination")
    routes: tuple[RouteSettings, ...] = Field(default=(), alias="route")

    @property
    def data_dir(self) -> Path:
        """Where inbox, results, state and audit lie: service.data_dir or the user's own folder."""
        return self.service.data_dir or user_data_path("smearlink", appauthor=False)

    @property
    def audit_dir(self) -> Path:
        """Folder of the audit trail."""
        return self.audit.folder or self.data_dir / "audit"

    @property
    def audit_key_file(self) -> Path:
        """The site's Ed25519 key; beside the trail, so never inside the folder it protects."""
        return self.audit.key_file or self.data_dir / "audit.key"

    @property
    def pseudonym_key_file(self) -> Path:
        """The site's key for pseudonyms."""
        return self.pseudonyms.key_file or self.data_dir / "pseudonyms.key"

    @property
    def database_url(self) -> str:
        """URL of the queue database; SQLite in the data folder by default."""
        return self.database.url or f"sqlite:///{(self.data_dir / 'state.sqlite').absolute()}"

    @property
    def worker_id(self) -> str:
        """service.worker_id, or the host's name: the same after a restart."""
        return self.service.worker_id or re.sub(r"[^A-Za-z0-9_.-]", "-", platform.node())[:64]

    @property
    def zone(self) -> tzinfo:
        """The zone in which results state their times."""
        return UTC if self.results.timezone == "UTC" else ZoneInfo(self.results.timezone)
