"""What a site may set, section by section; every key is explained in default.toml.

Names here are the keys of the TOML file. Values are frozen once read; a key that is not
listed is an error. Files named here are looked for by `config.validation`, not by these models.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

ResultKindName = Literal[
    "annotated_field",
    "gallery",
    "presentation_state",
    "structured_report",
    "bulk_annotations",
    "segmentation",
    "key_objects",
    "fhir_bundle",
    "table",
    "pdf_report",
    "hl7_message",
]
"""The words for results in settings; a test holds them equal to `reporting.results.ResultKind`."""

ALL_RESULT_KINDS: tuple[ResultKindName, ...] = (
    "annotated_field",
    "gallery",
    "presentation_state",
    "structured_report",
    "bulk_annotations",
    "segmentation",
    "key_objects",
    "fhir_bundle",
    "table",
    "pdf_report",
    "hl7_message",
)


def _none_when_empty(value: Any) -> Any:
    return None if value == "" else value


def _not_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty; name a path")
    return value


def _anchored_if_given(path: Path | None, info: ValidationInfo) -> Path | None:
    return _anchored(path, info) if path is not None else None


def _anchored(path: Path, info: ValidationInfo) -> Path:
    """Expand `~` and count a relative path from the folder of the settings file."""
    folder = (info.context or {}).get("folder")
    expanded = path.expanduser()
    return folder / expanded if folder is not None else expanded


def matching(pattern: str, rule: str) -> AfterValidator:
    """A check of a text by a pattern that tells people the rule instead of the pattern."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def _known_zone(name: str) -> str:
    if name == "UTC":  # always there, even where no time zone data is installed
        return name
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError) as err:
        raise ValueError("no such time zone; use an IANA name such as Europe/Berlin") from err
    return name


RequiredPath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_anchored)]
OptionalPath = Annotated[
    Path | None, BeforeValidator(_none_when_empty), AfterValidator(_anchored_if_given)
]
"""A path, or None for the empty string."""

AeTitle = Annotated[
    str,
    # PS3.5 Table 6.2-1, VR AE: no backslash, no control characters. Spaces at the ends carry no
    # meaning there, so we do not let them in.
    matching(
        r"(?! )[ -\[\]-~]{1,16}(?<! )",
        "an AE title has 1 to 16 characters, no backslash and no space at either end",
    ),
]
HostName = Annotated[
    str, matching(r"[A-Za-z0-9_.:\-]{1,253}", "must be a host name or an IP address, without port")
]
BoundPort = Annotated[int, Field(ge=0, le=65535)]
"""A port that we listen on; 0 takes any free one."""
PeerPort = Annotated[int, Field(ge=1, le=65535)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=604800, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all: frozen, and deaf to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ServiceSettings(Section):
    """Section [service]."""

    data_dir: OptionalPath = None
    worker_id: Annotated[
        str, matching(r"[A-Za-z0-9_.\-]{0,64}", "at most 64 letters, digits, '.', '_' and '-'")
    ] = ""
    stop_grace_s: Seconds = 30.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"


class ServerTls(Section):
    """[dicom.tls], [web.tls]: we are the server."""

    enabled: bool = False
    certificate: OptionalPath = None
    private_key: OptionalPath = None
    ca_certificates: OptionalPath = None
    require_client_certificate: bool = True


class ClientTls(Section):
    """[destination.tls], [audit.syslog.tls]: we are the client."""

    enabled: bool = False
    ca_certificates: OptionalPath = None
    certificate: OptionalPath = None
    private_key: OptionalPath = None


class PeerSettings(Section):
    """[[dicom.peer]]: ties a calling AE title to addresses or to a certificate."""

    ae_title: AeTitle
    addresses: tuple[str, ...] = ()
    certificate_subject: str = ""


class DicomSettings(Section):
    """Section [dicom]."""

    enabled: bool = True
    ae_title: AeTitle = "SMEARLINK"
    host: HostName = "127.0.0.1"
    port: BoundPort = 11112
    allowed_calling_aes: tuple[AeTitle, ...] = ()
    require_called_ae: bool = True
    extra_called_aes: tuple[AeTitle, ...] = ()
    max_associations: int = Field(default=32, ge=1, le=1024)
    max_associations_per_peer: int = Field(default=24, ge=0, le=1024)
    max_pdu_bytes: int = Field(default=131072, ge=4096, le=1048576)
    max_object_mb: int = Field(default=512, ge=1, le=4096)
    acse_timeout_s: PositiveSeconds = 10.0
    dimse_timeout_s: PositiveSeconds = 60.0
    idle_timeout_s: PositiveSeconds = 60.0
    tls: ServerTls = ServerTls()
    peers: tuple[PeerSettings, ...] = Field(default=(), alias="peer")


class ImageSettings(Section):
    """Section [image]."""

    max_megapixels: float = Field(default=100.0, gt=0, le=1000)
    min_side_px: int = Field(default=32, ge=32, le=4096)
    memory_mb: int = Field(default=2048, ge=64, le=1048576)
    max_frames: int = Field(default=64, ge=1, le=1000)


class SmearSettings(Section):
    """Section [smear]."""

    gather_by: Literal["series", "specimen"] = "series"
    quiet_s: Seconds = 10.0
    close_on_release: bool = False


class ReviewSettings(Section):
    """Section [review]."""

    must_identify: bool = True
    must_see_all: bool = True
    readers: Literal[1, 2] = 1
    quiet_s: Seconds = 60.0


class ModelSettings(Section):
    """Section [model]."""

    folder: OptionalPath = None
    precision: Literal["auto", "int8", "fp16"] = "auto"
    providers: tuple[str, ...] = ()
    threads: int = Field(default=0, ge=0, le=256)
    site_calibration: OptionalPath = None


class ResultsSettings(Section):
    """Section [results]."""

    kinds: tuple[ResultKindName, ...] = ALL_RESULT_KINDS
    compress_images: bool = True
    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    min_cells_for_percent: Annotated[int, Field(ge=1, le=10000)] = 50
    hl7_pdf: bool = False
    pdf_font: OptionalPath = None


class PseudonymSettings(Section):
    """[pseudonyms]: how destinations with `pseudonymise = true` are served."""

    key_file: OptionalPath = None
    options: tuple[
        Literal[
            "modified_dates",
            "retain_patient_characteristics",
            "retain_device_identity",
            "retain_institution_identity",
        ],
        ...,
    ] = ("modified_dates",)
    max_date_shift_days: int = Field(default=365, ge=1, le=3650)


class DatabaseSettings(Section):
    """Section [database]."""

    url: Annotated[
        str,
        matching(
            r"|postgresql://.+|sqlite:///.+",
            "must be empty (SQLite in data_dir) or begin with postgresql:// or sqlite:///",
        ),
    ] = Field(default="", repr=False)


class QueueSettings(Section):
    """Section [queue]."""

    analyse_workers: int = Field(default=0, ge=0, le=64)
    report_workers: int = Field(default=1, ge=1, le=64)
    report_processes: int = Field(default=1, ge=0, le=16)
    analysis_megapixels: float = Field(default=12.0, gt=0, le=10_000)


class SyslogSettings(Section):
    """[audit.syslog]: DICOM Audit Messages by syslog over TLS (RFC 5425)."""

    enabled: bool = False
    host: HostName = "127.0.0.1"
    port: PeerPort = 6514
    ca_certificates: OptionalPath = None
    certificate: OptionalPath = None
    private_key: OptionalPath = None
    timeout_s: PositiveSeconds = 10.0


class AuditSettings(Section):
    """Section [audit]."""

    folder: OptionalPath = None
    fsync: Literal["event", "interval", "never"] = "interval"
    fsync_every_s: PositiveSeconds = 1.0
    checkpoint_every_events: int = Field(default=1000, ge=1, le=1_000_000)
    checkpoint_every_s: PositiveSeconds = 300.0
    key_file: OptionalPath = None
    syslog: SyslogSettings = SyslogSettings()


class WebSettings(Section):
    """Section [web]."""

    enabled: bool = True
    host: HostName = "127.0.0.1"
    port: BoundPort = 8104
    stow: bool = True
    token_file: OptionalPath = None
    allowed_hosts: tuple[HostName, ...] = ()
    max_request_mb: int = Field(default=2048, ge=1, le=65536)
    tls: ServerTls = ServerTls()


RoleName = Literal["viewer", "reviewer", "operator", "auditor", "administrator"]
"""The words for roles in settings; a test holds them equal to the console's own."""


class ProxySettings(Section):
    """[console.proxy]: a proxy that signs people in."""

    addresses: tuple[str, ...] = ()
    user_header: str = "X-Remote-User"
    roles_header: str = "X-Remote-Roles"
    authenticated_at_header: str = ""
    sign_within_s: float = Field(default=60.0, gt=0, le=3600)
    sign_in_again_url: str = ""
    roles: dict[str, RoleName] = Field(default_factory=dict)


class OidcSettings(Section):
    """[console.oidc]: people sign in at the site's identity provider."""

    issuer: str = ""
    client_id: str = ""
    client_secret_file: OptionalPath = None
    redirect_url: str = ""
    scopes: tuple[str, ...] = ("openid", "profile")
    user_claim: str = "preferred_username"
    roles_claim: str = "roles"
    roles: dict[str, RoleName] = Field(default_factory=dict)


class ConsoleSettings(Section):
    """[console]."""

    enabled: bool = True
    idle_minutes: float = Field(default=30.0, gt=0, le=1440)
    session_hours: float = Field(default=10.0, gt=0, le=168)
    cache_mb: int = Field(default=2048, ge=1, le=1_000_000)
    max_upload_mb: int = Field(default=200, ge=1, le=65536)
    reference_ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    class_keys: dict[str, Annotated[str, matching("[a-z]", "must be one small letter")]] = Field(
        default_factory=dict
    )
    proxy: ProxySettings = ProxySettings()
    oidc: OidcSettings = OidcSettings()


class RetentionSettings(Section):
    """Section [retention]."""

    keep_images_days: float = Field(default=30.0, ge=0, le=36500)
    min_free_disk_mb: int = Field(default=500, ge=0, le=10_000_000)
