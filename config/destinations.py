"""Where results go, and which go where: [[destination]] and [[route]].

The `type` key says which of these a destination is, and so which further keys it takes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from config.sections import (
    AeTitle,
    ClientTls,
    HostName,
    OptionalPath,
    PeerPort,
    PositiveSeconds,
    RequiredPath,
    ResultKindName,
    Seconds,
    Section,
    matching,
)

Name = Annotated[
    str,
    # It becomes the name of a queue, a label of a metric and a word in the audit trail.
    matching(
        r"[a-z0-9][a-z0-9_\-]{0,39}",
        "a name has 1 to 40 lower-case letters, digits, '-' and '_'",
    ),
]
HttpUrl = Annotated[
    str,
    matching(
        r"|https?://[^\s/?#@]+(/[^\s?#]*)?",
        "must begin with http:// or https:// and hold no credentials, query or fragment",
    ),
]
Hl7Name = Annotated[
    str, matching(r"[^|^~\\&\r\n]{0,50}", "at most 50 characters, none of | ^ ~ \\ &")
]

TransferSyntaxName = Literal[
    "explicit_little_endian",
    "implicit_little_endian",
    "jpeg_baseline",
    "jpeg_2000_lossless",
    "rle_lossless",
]


class OAuthSettings(Section):
    """[destination.oauth]: client credentials, by secret or by signed assertion (SMART)."""

    token_url: HttpUrl = ""
    client_id: str = ""
    client_secret_file: OptionalPath = None
    private_key_file: OptionalPath = None
    key_id: str = ""
    algorithm: Literal["ES384", "RS384"] = "ES384"
    scope: str = ""

    @model_validator(mode="after")
    def _is_complete(self) -> OAuthSettings:
        if not self.token_url:
            if self.client_id or self.client_secret_file or self.private_key_file:
                raise ValueError("token_url is missing: give the token endpoint of the server")
            return self
        if not self.client_id:
            raise ValueError("client_id is missing: give the one that the server registered")
        if (self.client_secret_file is None) == (self.private_key_file is None):
            raise ValueError(
                "give either client_secret_file or private_key_file (SMART Backend Services)"
            )
        if self.private_key_file is not None and not self.key_id:
            raise ValueError("key_id is missing: it names the public key at the server")
        return self

    @property
    def is_used(self) -> bool:
        """Whether the site set a token endpoint."""
        return bool(self.token_url)


class DestinationBase(Section):
    """What every destination has: its name, its results, and how patiently it is tried."""

    name: Name
    kinds: tuple[ResultKindName, ...] = ()
    concurrency: int = Field(default=1, ge=1, le=64)
    rate_per_minute: int = Field(default=0, ge=0, le=100_000)
    max_tries: int = Field(default=8, ge=1, le=1000)
    first_delay_s: PositiveSeconds = 5.0
    max_delay_s: PositiveSeconds = 3600.0
    timeout_s: PositiveSeconds = 30.0
    pseudonymise: bool = False

    @model_validator(mode="after")
    def _delays_grow(self) -> DestinationBase:
        if self.max_delay_s < self.first_delay_s:
            raise ValueError("max_delay_s is below first_delay_s: raise the one or lower the other")
        return self


class DicomDestination(DestinationBase):
    """type = "dicom": C-STORE to a PACS."""

    type: Literal["dicom"]
    ae_title: AeTitle
    host: HostName
    port: PeerPort
    calling_ae_title: AeTitle = "SMEARLINK"
    transfer_syntaxes: tuple[TransferSyntaxName, ...] = Field(
        default=("jpeg_baseline", "explicit_little_endian", "implicit_little_endian"), min_length=1
    )
    storage_commitment: bool = False
    reject_replaced: bool = False
    commitment_timeout_s: Seconds = 3600.0
    tls: ClientTls = ClientTls()


class StowDestination(DestinationBase):
    """type = "stow": STOW-RS to a DICOMweb server."""

    type: Literal["stow"]
    url: HttpUrl
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    oauth: OAuthSettings = OAuthSettings()
    tls: ClientTls = ClientTls()

    @model_validator(mode="after")
    def _has_its_url(self) -> StowDestination:
        if not self.url:
            raise ValueError("url is empty: give the one to which /studies is added")
        return self


def _octal(text: str) -> str:
    if not 0o600 <= int(text, 8) <= 0o666 or int(text, 8) & 0o111:
        raise ValueError('give a mode such as "0600", "0640" or "0644"')
    return text


FileMode = Annotated[str, Field(pattern=r"^0?[0-7]{3}$"), AfterValidator(_octal)]
"""Permissions of the files of a folder, in octal; whoever may read them may enter the folder."""


class FhirDestination(DestinationBase):
    """type = "fhir": a transaction to a FHIR server, or NDJSON files in a folder."""

    type: Literal["fhir"]
    mode: Literal["http", "ndjson"] = "http"
    url: HttpUrl = ""
    folder: OptionalPath = None
    file_mode: FileMode = "0600"
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    attachments: Literal["inline", "binary", "links"] = "inline"
    max_attachment_kb: Annotated[int, Field(ge=16, le=1_048_576)] = 700
    oauth: OAuthSettings = OAuthSettings()
    tls: ClientTls = ClientTls()

    @model_validator(mode="after")
    def _has_its_target(self) -> FhirDestination:
        if self.mode == "http" and not self.url:
            raise ValueError('url is missing: mode = "http" posts to a FHIR base URL')
        if self.mode == "ndjson" and self.folder is None:
            raise ValueError('folder is missing: mode = "ndjson" writes files there')
        return self


class FolderDestination(DestinationBase):
    """type = "folder": files on a disk or a share."""

    type: Literal["folder"]
    path: RequiredPath
    png: bool = True
    file_mode: FileMode = "0600"


class Hl7Destination(DestinationBase):
    """type = "hl7": ORU^R01 by MLLP."""

    type: Literal["hl7"]
    host: HostName
    port: PeerPort
    sending_application: Hl7Name = "SMEARLINK"
    sending_facility: Hl7Name = ""
    receiving_application: Hl7Name = ""
    receiving_facility: Hl7Name = ""
    tls: ClientTls = ClientTls()


DestinationSettings = Annotated[
    DicomDestination | StowDestination | FhirDestination | FolderDestination | Hl7Destination,
    Field(discriminator="type"),
]


class RouteSettings(Section):
    """[[route]]: results for which `when` holds go to the destinations in `to`."""

    name: Name
    when: str = Field(default="", max_length=2000)
    to: tuple[str, ...] = Field(min_length=1)
