"""Destinations with their queues, and routes; both are made from the settings here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom import Dataset

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
from config.sections import ClientTls
from listener.queue.jobs import delivery_queue
from listener.storage.inbox import StoredInstance
from pipeline.domain import SmearFindings
from pipeline.errors import NeedsReview
from reporting.delivery import SENSIBLE_KINDS, CommitmentLedger, Destination
from reporting.delivery.destinations import dicom_store as dicom
from reporting.delivery.destinations import fhir_server as fhir
from reporting.delivery.destinations import folder, ndjson
from reporting.delivery.destinations import hl7_mllp as hl7
from reporting.delivery.destinations import stow_rs as stow
from reporting.delivery.destinations.fhir_attachments import Placement
from reporting.delivery.destinations.storage_commitment import UnrecordedRequests
from reporting.delivery.destinations.transfer_syntax import TRANSFER_SYNTAXES
from reporting.delivery.routing.rules import RoutingRule, destinations_for, facts_of
from reporting.delivery.transport.oauth import ClientSecret, OAuthClient, PrivateKey, TokenCache
from reporting.delivery.transport.tls import TlsFiles
from reporting.results import ResultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationQueue:
    """A destination with its queue and its retry policy."""

    destination: Destination
    concurrency: int = 1
    rate_per_minute: int = 0
    """0 for no limit."""
    max_tries: int = 8
    first_delay_s: float = 5.0
    max_delay_s: float = 3600.0
    commitment_timeout_s: float = 3600.0
    is_pseudonymous: bool = False
    """It gets de-identified results, and never any other."""

    @property
    def name(self) -> str:
        """Name of the destination."""
        return self.destination.name

    @property
    def queue(self) -> str:
        """Queue of its deliveries."""
        return delivery_queue(self.name)


class Destinations:
    """The current destinations; a reload replaces them all at once."""

    def __init__(self, destinations: Iterable[DestinationQueue]) -> None:
        self._by_name: Mapping[str, DestinationQueue] = {}
        self.replace(destinations)

    def replace(self, destinations: Iterable[DestinationQueue]) -> None:
        """Use a new set; attempts in progress end with the old one."""
        self._by_name = {one.name: one for one in destinations}

    def __iter__(self) -> Iterator[DestinationQueue]:
        return iter(self._by_name.values())

    def get(self, name: str) -> DestinationQueue:
        """Raises NeedsReview `destination_unknown` when it was taken out of the settings."""
        if name not in self._by_name:
            raise NeedsReview(
                f"There is no destination {name} any more: put it back into the settings, "
                "then retry",
                code="destination_unknown",
            )
        return self._by_name[name]


def make_destination_queues(
    settings: Sequence[DestinationSettings], ledger: CommitmentLedger | None = None
) -> tuple[DestinationQueue, ...]:
    """Every destination of a site with its queue, in the order of the settings.

    `ledger` remembers open storage commitment requests; without one only reports on the same
    association are understood.
    """
    return tuple(make_destination_queue(one, ledger) for one in settings)


def make_destination_queue(
    settings: DestinationSettings, ledger: CommitmentLedger | None = None
) -> DestinationQueue:
    """One destination with its queue and retry policy."""
    patience = {}
    if isinstance(settings, DicomDestination):
        patience["commitment_timeout_s"] = settings.commitment_timeout_s
    return DestinationQueue(
        destination=make_destination(settings, ledger),
        concurrency=settings.concurrency,
        rate_per_minute=settings.rate_per_minute,
        max_tries=settings.max_tries,
        first_delay_s=settings.first_delay_s,
        max_delay_s=settings.max_delay_s,
        is_pseudonymous=settings.pseudonymise,
        **patience,
    )


def make_destination(
    settings: DestinationSettings, ledger: CommitmentLedger | None = None
) -> Destination:
    """The destination of the type that the settings name."""
    kinds = frozenset(map(ResultKind, settings.kinds)) or SENSIBLE_KINDS[settings.type]
    match settings:
        case DicomDestination():
            return dicom.DicomDestination(
                name=settings.name,
                ae_title=settings.ae_title,
                host=settings.host,
                port=settings.port,
                calling_ae_title=settings.calling_ae_title,
                kinds=kinds,
                transfer_syntaxes=tuple(
                    TRANSFER_SYNTAXES[name] for name in settings.transfer_syntaxes
                ),
                storage_commitment=settings.storage_commitment,
                ledger=ledger or UnrecordedRequests(),
                rejects_replaced=settings.reject_replaced,
                timeout_s=settings.timeout_s,
                tls=_tls_if_enabled(settings.tls),
            )
        case StowDestination():
            return stow.StowDestination(
                name=settings.name,
                url=settings.url,
                kinds=kinds,
                headers=settings.headers,
                timeout_s=settings.timeout_s,
                tokens=_tokens(settings.oauth),
                tls=_tls_files(settings.tls),
            )
        case FhirDestination(mode="ndjson", folder=path) if path is not None:
            return ndjson.NdjsonDestination(
                name=settings.name, folder=path, file_mode=int(settings.file_mode, 8), kinds=kinds
            )
        case FhirDestination():
            return fhir.FhirDestination(
                name=settings.name,
                url=settings.url,
                kinds=kinds,
                headers=settings.headers,
                timeout_s=settings.timeout_s,
                attachments=Placement(settings.attachments),
                max_attachment_bytes=settings.max_attachment_kb * 1000,
                tokens=_tokens(settings.oauth),
                tls=_tls_files(settings.tls),
            )
        case FolderDestination():
            return folder.FolderDestination(
                name=settings.name,
                path=settings.path,
                png=settings.png,
                file_mode=int(settings.file_mode, 8),
                kinds=kinds,
            )
        case Hl7Destination():
            return hl7.Hl7Destination(
                name=settings.name,
                host=settings.host,
                port=settings.port,
                sending_application=settings.sending_application,
                sending_facility=settings.sending_facility,
                receiving_application=settings.receiving_application,
                receiving_facility=settings.receiving_facility,
                kinds=kinds,
                timeout_s=settings.timeout_s,
                tls=_tls_if_enabled(settings.tls),
            )


def parse_rules(settings: Sequence[RouteSettings]) -> tuple[RoutingRule, ...]:
    """The site's routes; Rejected, with the place of the fault, for one that cannot be read."""
    return tuple(RoutingRule.parse(one.name, one.when, one.to) for one in settings)


class Routes:
    """Names the destinations of one analysed smear; a reload replaces rules and names at once."""

    def __init__(self, rules: Sequence[RoutingRule], destinations: Sequence[str]) -> None:
        self._now = (tuple(rules), tuple(destinations))

    def replace(self, rules: Sequence[RoutingRule], destinations: Sequence[str]) -> None:
        """Go on with other rules."""
        self._now = (tuple(rules), tuple(destinations))

    def __call__(
        self, smear: SmearFindings, *, header: Dataset, image: StoredInstance
    ) -> tuple[str, ...]:
        """Names of the destinations that get the results of this smear."""
        rules, destinations = self._now
        facts = facts_of(rules, [header], calling_aes=[image.source], smear=smear)
        return destinations_for(rules, facts, destinations)


def _tls_if_enabled(settings: ClientTls) -> TlsFiles | None:
    return _tls_files(settings) if settings.enabled else None


def _tls_files(settings: ClientTls) -> TlsFiles:
    """For HTTP: an https:// address always uses TLS, these say with which certificates."""
    return TlsFiles(
        certificate=settings.certificate,
        private_key=settings.private_key,
        ca_certificates=settings.ca_certificates,
    )


def _tokens(settings: OAuthSettings) -> TokenCache | None:
    if not settings.is_used:
        return None
    proof: ClientSecret | PrivateKey
    if settings.client_secret_file is not None:
        proof = ClientSecret(secret_file=settings.client_secret_file)
    elif settings.private_key_file is not None:
        proof = PrivateKey(key_file=settings.private_key_file, key_id=settings.key_id)
    else:
        return None
    return TokenCache(
        OAuthClient(
            token_url=settings.token_url,
            client_id=settings.client_id,
            proof=proof,
            scope=settings.scope,
        )
    )
