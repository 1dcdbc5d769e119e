"""The console put together: every address, with the permission that it asks for.

`ROUTES` of a console is the whole list; a test crawls it with every role and with none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files as package_files
from pathlib import Path

from argon2 import PasswordHasher
from pydicom import Dataset
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from config.sections import ConsoleSettings
from listener.observability.logging_setup import get_log
from listener.queue.status import WorkflowStatus
from listener.storage.data_folder import Store
from listener.storage.inbox import StoredInstance
from listener.storage.smear_grouping import GatherBy
from listener.web.console.accounts import Accounts
from listener.web.console.audit_index import AuditIndex
from listener.web.console.audit_pages import AuditPages
from listener.web.console.blind_reading import BlindPage
from listener.web.console.database import ConsoleDatabase
from listener.web.console.exports import EXPORT_WORDS, Exporter, ExportPage
from listener.web.console.gate import Door, Gate, Handler, SignInLimiter, TrustedProxy
from listener.web.console.layout import CONSOLE_HEADERS, Layout
from listener.web.console.live import LiveEvents
from listener.web.console.network import NetworkPage
from listener.web.console.oidc import Oidc, OidcClient, OidcPages
from listener.web.console.operations import OperationsPages
from listener.web.console.permissions import Permission, Role
from listener.web.console.pictures import Pictures
from listener.web.console.references import ReferencePages, References
from listener.web.console.review_pages import DEFAULT_KEYS, ReviewPages
from listener.web.console.sessions import Sessions, Visitor
from listener.web.console.sign_in import SignInPages
from listener.web.console.signing import ProviderSigning, ProxyTimes, ShownAgain
from listener.web.console.smear import SmearPages
from listener.web.console.smear_files import IsDelivered, SmearFiles
from listener.web.console.smear_index import SmearIndex
from listener.web.console.smears import SmearsPage
from listener.web.console.upload_pages import UploadPages
from listener.web.console.uploads import Uploads
from listener.workflow.memory_budget import MEBIBYTE, MemoryBudget
from listener.workflow.reviews import Reviews
from pipeline.decoding.frames import ImageLimits
from pipeline.domain import DecisionPolicy, ModelIdentity, SOPInstanceUID
from pipeline.errors import Rejected
from pipeline.findings.percentages import MIN_CELLS_FOR_PERCENT
from reporting.audit.trail import AuditSink
from reporting.dicom.deidentification import Pseudonymiser

STATIC = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleParts:
    """What the console needs of the service around it."""

    settings: ConsoleSettings
    database: ConsoleDatabase
    store: Store
    audit: AuditSink
    is_loopback: bool
    software_version: str
    model: ModelIdentity
    cache_dir: Path
    audit_dir: Path
    audit_public_key: Path
    policy: DecisionPolicy
    model_folder: Path
    gather_by: GatherBy
    limits: ImageLimits
    compress_images: bool
    on_received: Callable[[StoredInstance], None]
    read_status: Callable[[], WorkflowStatus]
    retry: Callable[[str], int]
    is_delivered: IsDelivered
    pseudonymiser: Callable[[], Pseudonymiser]
    reviews: Reviews
    checks: Mapping[str, Callable[[], None]]
    destination_checks: Callable[[], Mapping[str, Callable[[], str]]]
    free_bytes: Callable[[], int]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    hasher: PasswordHasher | None = None
    min_cells_for_percent: int = MIN_CELLS_FOR_PERCENT
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(512 * MEBIBYTE))
    """For pictures that people upload or look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address of the console."""

    path: str
    method: str
    handler: Handler
    door: Door


class Console:
    """Every page. Made once; `routes` go into the web application."""

    def __init__(self, parts: ConsoleParts) -> None:
        """Raises Rejected `console_unguarded` on a network where nobody could sign in."""
        settings, database = parts.settings, parts.database
        self.accounts = Accounts(database, hasher=parts.hasher, clock=parts.clock)
        proxy = _proxy(settings)
        check_guarded(parts, self.accounts, proxy)
        self.sessions = Sessions(
            database,
            idle=timedelta(minutes=settings.idle_minutes),
            longest=timedelta(hours=settings.session_hours),
            clock=parts.clock,
        )
        self.layout = Layout(
            software_version=parts.software_version,
            min_cells_for_percent=parts.min_cells_for_percent,
            clock=parts.clock,
        )
        self.gate = Gate(
            accounts=self.accounts,
            sessions=self.sessions,
            audit=parts.audit,
            layout=self.layout,
            proxy=proxy,
            has_oidc=bool(settings.oidc.issuer),
            is_loopback=parts.is_loopback,
        )
        self.limiter = SignInLimiter()
        self.index = SmearIndex(database)
        self.files = smear_files(parts)
        self.pictures = Pictures(
            parts.cache_dir,
            parts.store.inbox,
            limits=parts.limits,
            most_bytes=settings.cache_mb * 2**20,
            memory=parts.memory,
        )
        self.references = References(
            cells=parts.store.references,
            id_of=lambda key: self.sessions.sign("reference", key)[:32],
        )
        self.live = LiveEvents(self.index.changed_at)
        self.trail = AuditIndex(database, parts.audit_dir)
        self._oidc = self._provider(parts)
        self._stopping = threading.Event()
        self._follower = threading.Thread(
            target=self.trail.follow, args=(self._stopping,), name="console-audit", daemon=True
        )
        self._catching_up = threading.Thread(
            target=self._catch_up, name="console-reviews", daemon=True
        )
        self._parts = parts
        self.addresses = tuple(self._addresses())
        self.routes = tuple(self._routes())

    def start(self) -> None:
        """Index the audit trail from now on, tidy up the pictures, and take up the acts of
        reviewers that an earlier process kept and died before it told and reported them.
        """
        self.pictures.prune()
        self._follower.start()
        self._catching_up.start()

    def close(self) -> None:
        """End what pages hold open."""
        self._stopping.set()
        self.live.close()
        self.pictures.close()
        for thread in (self._follower, self._catching_up):
            if thread.ident is not None:
                thread.join(timeout=10)

    def _catch_up(self) -> None:
        try:
            self._parts.reviews.catch_up()
        except Exception as err:  # noqa: BLE001 - the boundary of a thread; the next start tries again
            get_log("listener.web.console").warning("defect_met", error_type=type(err).__name__)

    def _provider(self, parts: ConsoleParts) -> OidcPages | None:
        if not parts.settings.oidc.issuer:
            return None
        return OidcPages(
            oidc=Oidc(_oidc_client(parts.settings)),
            sessions=self.sessions,
            gate=self.gate,
            layout=self.layout,
            audit=parts.audit,
        )

    def _review_pages(self, parts: ConsoleParts) -> ReviewPages:
        proxy = parts.settings.proxy
        return ReviewPages(
            reviews=parts.reviews,
            gate=self.gate,
            layout=self.layout,
            shown_again=ShownAgain(
                accounts=self.accounts,
                limiter=self.limiter,
                proxy=ProxyTimes(
                    header=proxy.authenticated_at_header,
                    within_s=proxy.sign_within_s,
                    sign_in_again_url=proxy.sign_in_again_url,
                ),
                now=lambda: parts.clock().timestamp(),
            ),
            provider=None
            if self._oidc is None
            else ProviderSigning(
                reviews=parts.reviews, gate=self.gate, layout=self.layout, oidc=self._oidc
            ),
        )

    def _reference_pages(self, pages: SmearPages) -> ReferencePages:
        parts = self._parts

        def check_pixels(image: SOPInstanceUID) -> None:
            parts.pseudonymiser().dataset(parts.store.inbox.read_header(image))

        return ReferencePages(
            references=self.references,
            open_smear=pages.opened,
            reviews=parts.reviews,
            pictures=self.pictures,
            check_pixels=check_pixels,
            layout=self.layout,
            audit=parts.audit,
            software_version=parts.software_version,
            clock=parts.clock,
        )

    def _routes(self) -> Iterator[Route]:
        for address in self.addresses:
            endpoint = self.gate(address.handler, address.door)
            yield Route(address.path, endpoint, methods=[address.method])

    def _addresses(self) -> Iterator[Address]:
        yield from self._open_addresses()
        yield from self._smear_addresses()
        yield from self._upload_addresses()
        yield from self._service_addresses()

    def _open_addresses(self) -> Iterator[Address]:
        parts = self._parts
        sign_in = SignInPages(
            accounts=self.accounts,
            sessions=self.sessions,
            gate=self.gate,
            layout=self.layout,
            audit=parts.audit,
            limiter=self.limiter,
            oidc_name="your organization" if parts.settings.oidc.issuer else "",
        )
        if self._oidc is not None:
            yield _get("/oidc/start", self._oidc.start, None, is_open=True)
            yield _get("/oidc/callback", self._oidc.callback, None, is_open=True)
        yield _get("/static/{name}", _static, None, is_open=True)
        yield _get("/sign-in", sign_in.show, None, is_open=True)
        yield _post("/sign-in", sign_in.sign_in, None, is_open=True)
        yield _post("/sign-out", sign_in.sign_out, None)
        yield _get("/", _first_page, None)

    def _smear_addresses(self) -> Iterator[Address]:
        parts = self._parts
        look = Permission.LOOK
        smears = SmearsPage(
            index=self.index, layout=self.layout, audit=parts.audit, exports=EXPORT_WORDS
        )
        pages = SmearPages(
            files=self.files,
            index=self.index,
            pictures=self.pictures,
            layout=self.layout,
            audit=parts.audit,
            reference_ranges=parts.settings.reference_ranges,
            exports=EXPORT_WORDS,
            reviews=parts.reviews,
            class_keys={**DEFAULT_KEYS, **parts.settings.class_keys},
            signs_through_proxy=bool(parts.settings.proxy.authenticated_at_header),
            sign_in_again_url=parts.settings.proxy.sign_in_again_url,
            references=self.references,
        )
        review = self._review_pages(parts)
        export = ExportPage(
            exporter=Exporter(
                results=parts.store.results,
                inbox=parts.store.inbox,
                pictures=self.pictures,
                pseudonymiser=parts.pseudonymiser,
                software_version=parts.software_version,
                compress_images=parts.compress_images,
                reviewed=lambda smear_id: parts.reviews.read(smear_id),
            ),
            files=self.files,
            layout=self.layout,
            audit=parts.audit,
        )
        yield _get("/smears", smears.show, look)
        yield _post("/smears", smears.search, look)
        yield _get("/events", self.live.stream, look)
        yield _get("/smears/{smear}", pages.show, look)
        yield _get("/smears/{smear}/sprites/{digest}/{name}", pages.sprite, look)
        yield _get("/smears/{smear}/fields/{number:int}", pages.field, look)
        yield _get("/smears/{smear}/fields/{number:int}/{kind}", pages.field_picture, look)
        blind = BlindPage(
            open_smear=pages.opened,
            pictures=self.pictures,
            reviews=parts.reviews,
            layout=self.layout,
            audit=parts.audit,
            class_keys={**DEFAULT_KEYS, **parts.settings.class_keys},
        )
        yield _get("/smears/{smear}/read", blind.show, Permission.REVIEW)
        yield _post("/smears/{smear}/review", review.act, Permission.REVIEW)
        yield _post("/smears/{smear}/sign", review.sign, Permission.REVIEW)
        yield _post("/export", export.export, Permission.TAKE_AWAY)
        references = self._reference_pages(pages)
        yield _post("/smears/{smear}/references", references.change, Permission.REFERENCES)
        yield _get("/references/{cell_class}/{reference}", references.picture, look)

    def _upload_addresses(self) -> Iterator[Address]:
        parts = self._parts
        uploads = Uploads(
            database=parts.database,
            inbox=parts.store.inbox,
            results=parts.store.results,
            audit=parts.audit,
            on_received=parts.on_received,
            gather_by=parts.gather_by,
            limits=parts.limits,
            memory=parts.memory,
            clock=parts.clock,
        )
        pages = UploadPages(uploads=uploads, index=self.index, layout=self.layout)
        upload, most = Permission.UPLOAD, parts.settings.max_upload_mb * 2**20
        yield _get("/upload", pages.show, upload)
        yield _post("/upload", pages.begin, upload, max_body_bytes=most)
        yield _get("/upload/{batch}", pages.show_batch, upload)
        yield _post("/upload/{batch}", pages.add, upload, max_body_bytes=most)

    def _service_addresses(self) -> Iterator[Address]:
        parts = self._parts
        operations = OperationsPages(
            read_status=parts.read_status,
            retry=parts.retry,
            checks=parts.checks,
            destination_checks=parts.destination_checks,
            free_bytes=parts.free_bytes,
            trail=self.trail,
            layout=self.layout,
            audit=parts.audit,
            software_version=parts.software_version,
            model=parts.model,
        )
        audit = AuditPages(
            index=self.trail,
            folder=parts.audit_dir,
            public_key=parts.audit_public_key,
            layout=self.layout,
            audit=parts.audit,
        )
        network = NetworkPage(
            model=parts.model, policy=parts.policy, folder=parts.model_folder, layout=self.layout
        )
        yield _get("/network", network.show, Permission.NETWORK)
        yield _get("/operations", operations.show, Permission.WATCH)
        yield _post("/operations/retry", operations.retry, Permission.OPERATE)
        yield _post("/operations/test", operations.test, Permission.OPERATE)
        yield _get("/audit", audit.show, Permission.AUDIT)
        yield _post("/audit/verify", audit.verify, Permission.AUDIT)
        yield _post("/audit/export", audit.export, Permission.AUDIT)


def smear_files(parts: ConsoleParts) -> SmearFiles:
    """The results folder and the inbox, read for people."""
    pseudonymiser = parts.pseudonymiser()

    def pseudonym_of(header: Dataset) -> str:
        whose = Dataset()
        for word in ("PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"):
            if word in header:
                whose[word] = header[word]
        return str(pseudonymiser.dataset(whose).get("PatientID") or "")

    return SmearFiles(
        parts.store.inbox,
        parts.store.results,
        parts.is_delivered,
        pseudonym_of,
        review_of=parts.reviews.state,
    )


def check_guarded(parts: ConsoleParts, accounts: Accounts, proxy: TrustedProxy | None) -> None:
    """Refuse to open patients' data to a network where everybody could read it."""
    can_sign_in = proxy is not None or bool(parts.settings.oidc.issuer) or accounts.exist()
    if not parts.is_loopback and not can_sign_in:
        raise Rejected(
            "console: web.host is on a network, and nobody can sign in. Make an account (smearlink "
            "user add NAME --role administrator), set [console.proxy] or [console.oidc], or turn "
            "the console off with console.enabled = false.",
            code="console_unguarded",
        )


def _proxy(settings: ConsoleSettings) -> TrustedProxy | None:
    proxy = settings.proxy
    if not proxy.addresses:
        return None
    return TrustedProxy(
        addresses=proxy.addresses,
        user_header=proxy.user_header,
        roles_header=proxy.roles_header,
        role_names={word: Role(role) for word, role in proxy.roles.items()},
    )


def _oidc_client(settings: ConsoleSettings) -> OidcClient:
    oidc = settings.oidc
    return OidcClient(
        issuer=oidc.issuer,
        client_id=oidc.client_id,
        redirect_url=oidc.redirect_url,
        secret_file=oidc.client_secret_file,
        scopes=oidc.scopes,
        user_claim=oidc.user_claim,
        roles_claim=oidc.roles_claim,
        role_names={word: Role(role) for word, role in oidc.roles.items()},
    )


def _get(
    path: str, handler: Handler, permission: Permission | None, *, is_open: bool = False
) -> Address:
    return Address(
        path=path, method="GET", handler=handler, door=Door(permission=permission, is_open=is_open)
    )


def _post(
    path: str,
    handler: Handler,
    permission: Permission | None,
    *,
    is_open: bool = False,
    max_body_bytes: int | None = None,
) -> Address:
    door = Door(permission=permission, is_open=is_open)
    if max_body_bytes is not None:
        door = Door(permission=permission, max_body_bytes=max_body_bytes)
    return Address(path=path, method="POST", handler=handler, door=door)


_FIRST_PAGES: Sequence[tuple[Permission, str]] = (
    (Permission.LOOK, "/smears"),
    (Permission.AUDIT, "/audit"),
    (Permission.WATCH, "/operations"),
    (Permission.NETWORK, "/network"),
)


async def _first_page(_request: Request, visitor: Visitor) -> Response:
    place = next((path for permission, path in _FIRST_PAGES if visitor.may(permission)), "/sign-in")
    return RedirectResponse(place, status_code=303)


async def _static(request: Request, _visitor: Visitor) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return Response(status_code=404, headers=dict(CONSOLE_HEADERS))
    content = (package_files("listener.web.console") / "static" / name).read_bytes()
    headers = {**CONSOLE_HEADERS, "Cache-Control": "no-cache"}
    return Response(content, media_type=STATIC[name], headers=headers)
