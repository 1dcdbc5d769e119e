"""The settings of a site: one frozen value, read once, right in every key or refused.

    settings = load_settings(Path("smearlink.toml"), os.environ)
    settings.dicom.port, settings.audit_dir, settings.destinations

Sections are in `config.sections` and `config.destinations`, meanings in `default.toml`.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from platformdirs import user_data_path
from pydantic import Field, ValidationError

from config.checks import check_files, check_together
from config.destinations import (
    DestinationSettings,
    DicomDestination,
    FhirDestination,
    FolderDestination,
    Hl7Destination,
    OAuthSettings,
    RouteSettings,
    StowDestination,
)
from config.problems import SettingsError, explain
from config.sections import (
    AuditSettings,
    ClientTls,
    DatabaseSettings,
    DicomSettings,
    ImageSettings,
    ModelSettings,
    PeerSettings,
    PseudonymSettings,
    QueueSettings,
    ResultsSettings,
    RetentionSettings,
    Section,
    ServerTls,
    ServiceSettings,
    SmearSettings,
    SyslogSettings,
    WebSettings,
)
from config.sources import merge, read_defaults, read_environment, read_file

__all__ = [
    "AuditSettings",
    "ClientTls",
    "DatabaseSettings",
    "DestinationSettings",
    "DicomDestination",
    "DicomSettings",
    "FhirDestination",
    "FolderDestination",
    "Hl7Destination",
    "ImageSettings",
    "ModelSettings",
    "OAuthSettings",
    "PeerSettings",
    "PseudonymSettings",
    "QueueSettings",
    "ResultsSettings",
    "RetentionSettings",
    "RouteSettings",
    "ServerTls",
    "ServiceSettings",
    "Settings",
    "SettingsError",
    "SmearSettings",
    "StowDestination",
    "SyslogSettings",
    "WebSettings",
    "check_reload",
    "load_settings",
    "make_settings",
    "reload_settings",
]

RELOADABLE = ("destinations", "routes")


class Settings(Section):
    """Everything that a site may change."""

    service: ServiceSettings = ServiceSettings()
    dicom: DicomSettings = DicomSettings()
    image: ImageSettings = ImageSettings()
    smear: SmearSettings = SmearSettings()
    model: ModelSettings = ModelSettings()
    results: ResultsSettings = ResultsSettings()
    pseudonyms: PseudonymSettings = PseudonymSettings()
    database: DatabaseSettings = DatabaseSettings()
    queue: QueueSettings = QueueSettings()
    audit: AuditSettings = AuditSettings()
    web: WebSettings = WebSettings()
    retention: RetentionSettings = RetentionSettings()
    destinations: tuple[DestinationSettings, ...] = Field(default=(), alias="destination")
    routes: tuple[RouteSettings, ...] = Field(default=(), alias="route")

    @property
    def data_dir(self) -> Path:
        """Where inbox, results, state and audit lie: service.data_dir or the user's own folder."""
        return self.service.data_dir or user_data_path("smearlink", appauthor=False)

    @property
    def audit_dir(self) -> Path:
        return self.audit.folder or self.data_dir / "audit"

    @property
    def audit_key_file(self) -> Path:
        """The site's Ed25519 key; beside the trail, so never inside the folder it protects."""
        return self.audit.key_file or self.data_dir / "audit.key"

    @property
    def pseudonym_key_file(self) -> Path:
        return self.pseudonyms.key_file or self.data_dir / "pseudonyms.key"

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{(self.data_dir / 'state.sqlite').absolute()}"

    @property
    def worker_id(self) -> str:
        """service.worker_id, or the host's name: the same after a restart."""
        return self.service.worker_id or re.sub(r"[^A-Za-z0-9_.-]", "-", platform.node())[:64]

    @property
    def zone(self) -> tzinfo:
        """The zone in which results state their times."""
        return UTC if self.results.timezone == "UTC" else ZoneInfo(self.results.timezone)


def load_settings(path: Path | None, env: Mapping[str, str] | None = None) -> Settings:
    """Read default.toml, then the site's file, then the environment; SettingsError if unusable.

    `env` is normally `os.environ`; None reads no variables.
    """
    own = read_file(path) if path is not None else {}
    variables = read_environment(env or {}, Settings)
    folder = path.absolute().parent if path is not None else None
    return make_settings(merge(own, variables), folder=folder)


def make_settings(given: Mapping[str, Any], *, folder: Path | None = None) -> Settings:
    """Settings from a table over the defaults; relative paths count from `folder`."""
    table = merge(read_defaults(), given)
    try:
        settings = Settings.model_validate(table, context={"folder": folder})
    except ValidationError as err:
        raise SettingsError(explain(err, Settings, table)) from err
    problems = [*check_together(settings), *check_files(settings)]
    if problems:
        raise SettingsError(problems)
    return settings


def reload_settings(
    old: Settings, path: Path | None, env: Mapping[str, str] | None = None
) -> Settings:
    """The settings read anew, if only destinations and routes differ; SettingsError otherwise."""
    return check_reload(old, load_settings(path, env))


def check_reload(old: Settings, new: Settings) -> Settings:
    """`new`, if only destinations and routes differ from `old`; SettingsError otherwise."""
    changed = [
        name
        for name in Settings.model_fields
        if name not in RELOADABLE and getattr(new, name) != getattr(old, name)
    ]
    if changed:
        raise SettingsError(
            f"{name}: was changed, which needs a restart; "
            "only destinations and routes can be reloaded. The old settings stay."
            for name in changed
        )
    return new
