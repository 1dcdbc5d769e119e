"""The command line: each command in a few lines; the module that it calls does the work.

Imports are inside the commands, because loading everything takes more than a second.
Exit codes: 0 success, 1 a person must act, 2 wrong usage or settings, 75 try again later.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from listener.observability.logging_setup import describe_error
from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.errors import Rejected, RetryLater, SmearlinkError

if TYPE_CHECKING:
    from config.model import Settings
    from listener.queue.client import QueueClient
    from listener.storage.data_folder import Store

NEEDS_PERSON, WRONG_USE, TRY_LATER = 1, 2, 75
"""The last is EX_TEMPFAIL of sysexits.h."""

app = typer.Typer(
    name="smearlink",
    help=f"White cells of blood smears on the DICOM network. {RESEARCH_USE_ONLY}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"smearlink {version('smearlink')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """White cells of blood smears on the DICOM network. Research use only."""


audit_app = typer.Typer(help="Check, read and export the audit trail.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")
user_app = typer.Typer(help="Who may sign in to the console.", no_args_is_help=True)
app.add_typer(user_app, name="user")

SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        "-s",
        envvar="SMEARLINK_SETTINGS",
        help="TOML file of the site; config/default.toml explains every key.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of tables.")]


def main() -> None:
    """Run the command; a SmearlinkError becomes one message and an exit code."""
    # Warnings of libraries quote what they read, which may name a patient.
    warnings.simplefilter("ignore")
    try:
        app()
    except SmearlinkError as err:
        print(f"smearlink: {err.message}", file=sys.stderr)  # noqa: T201
        sys.exit(_exit_code(err))
    except Exception as err:  # noqa: BLE001 - the boundary of every command
        # Its text and its locals may hold what a file held, so only the place is shown.
        place = describe_error(err)
        print(  # noqa: T201
            f"smearlink: internal error, please report it: {place['error_type']} "
            f"at {' > '.join(place['trace'])}",
            file=sys.stderr,
        )
        sys.exit(NEEDS_PERSON)


def _exit_code(err: SmearlinkError) -> int:
    if isinstance(err, RetryLater):
        return TRY_LATER
    return WRONG_USE if isinstance(err, Rejected) else NEEDS_PERSON


# --- the service


@app.command()
def serve(settings: SettingsFile = None) -> None:
    """Run the service: listen, analyse, report, deliver.

    SIGTERM stops it; SIGHUP reads destinations and routes again.
    """
    from listener.cli.serve import run_service

    run_service(_reader(settings), listens=True)


@app.command()
def worker(settings: SettingsFile = None) -> None:
    """Run one more worker beside a service.

    It analyses, reports and delivers; it needs the service's database and data folder.
    """
    from listener.cli.serve import run_service

    run_service(_reader(settings), listens=False)


# --- without a service


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path(
        "demo-output"
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of your own JPG, PNG, BMP, TIFF or DICOM files."),
    ] = None,
    fields: Annotated[int, typer.Option(min=1, max=40, help="Phantom fields to draw.")] = 6,
    model: Annotated[Path | None, typer.Option(help="Folder of another model.")] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep the console up afterwards, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --stay: port of the console, 0 for any.")
    ] = 8104,
) -> None:
    """Run phantom fields, or your own, through a service.

    Everything stays on this machine: PACS and EHR are stand-ins on loopback.
    """
    from listener.cli.demo import run_demo

    port_to_stay = port if stay else None
    raise typer.Exit(
        run_demo(out, data=data, fields=fields, model=model, stay_on_port=port_to_stay)
    )


@app.command()
def send(
    files: Annotated[list[Path], typer.Argument(help="Images or folders of images.")],
    to: Annotated[str, typer.Option(help="Receiver as AET@HOST:PORT.")],
    calling: Annotated[str, typer.Option(help="Our own AE title.")] = "SMEARSEND",
    accession: Annotated[str, typer.Option(help="Accession number of the order.")] = "",
    patient_id: Annotated[str, typer.Option(help="Patient ID of the order.")] = "",
    specimen: Annotated[str, typer.Option(help="Identifier of the slide.")] = "",
    spacing_um: Annotated[
        float | None, typer.Option(min=0.01, max=10, help="µm per pixel, when known.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS; the system's CAs count.")] = False,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the CA that signed the receiver. Means --tls.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(help="PEM file of our own certificate. Means --tls.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="PEM file of its key; by default in --cert too.")
    ] = None,
) -> None:
    """Send files by C-STORE; photographs become DICOM."""
    from listener.cli.console import send_with_progress
    from listener.modality.secondary_capture import Order
    from reporting.delivery.transport.tls import TlsFiles

    if key and not cert:
        raise Rejected("--key needs --cert: name the certificate that it belongs to", code="usage")
    files_of_tls = TlsFiles(certificate=cert, private_key=key, ca_certificates=ca)
    order = Order(
        accession=accession, patient_id=patient_id, specimen=specimen, spacing_um=spacing_um
    )
    failed = send_with_progress(
        files, to, calling, order, files_of_tls if tls or ca or cert else None
    )
    raise typer.Exit(NEEDS_PERSON if failed else 0)


@app.command()
def analyse(
    files: Annotated[list[Path], typer.Argument(help="Images or folders of images.")],
    out: Annotated[Path, typer.Option(help="Folder for annotated pictures.")],
    debug: Annotated[bool, typer.Option("--debug", help="Also a picture of every stage.")] = False,
    settings: SettingsFile = None,
) -> None:
    """Analyse files without any network.

    One JSON line per frame on standard output, pictures and a table in --out.
    """
    from listener.cli.analyse import analyse_files

    site = _reader(settings)()
    failed = analyse_files(files, out, settings=site, with_stages=debug, write=_print_line)
    raise typer.Exit(NEEDS_PERSON if failed else 0)


@app.command()
def evaluate(
    packs: Annotated[
        list[Path], typer.Argument(help="Folders with manifest.csv and its pictures.")
    ],
    split: Annotated[
        str | None, typer.Option(help="Only rows of this split, and those with none.")
    ] = None,
    as_json: AsJson = False,
    settings: SettingsFile = None,
) -> None:
    """Measure network and segmentation on data packs."""
    from listener.cli.evaluate import evaluate_with_progress

    result = evaluate_with_progress(packs, split=split, settings=_reader(settings)())
    if as_json:
        _print_line(result)
        return
    from listener.cli.console import show_evaluation

    show_evaluation(result)


@app.command()
def calibrate(
    site: Annotated[str, typer.Option(help="Name of the laboratory, as results show it.")],
    packs: Annotated[
        list[Path] | None, typer.Argument(help="Folders with manifest.csv and its pictures.")
    ] = None,
    reviews: Annotated[
        bool, typer.Option("--reviews", help="From the smears that were signed in the console.")
    ] = False,
    out: Annotated[Path, typer.Option(help="New file for the calibration.")] = Path(
        "site-calibration.toml"
    ),
    source: Annotated[str, typer.Option(help="Source of the packs, where they have several.")] = "",
    normal_cells_only: Annotated[
        bool, typer.Option("--normal-cells-only", help="Leave leukemic cells out.")
    ] = False,
    even_if_not_better: Annotated[
        bool,
        typer.Option(
            "--even-if-not-better", help="Write it although smears left out gain nothing."
        ),
    ] = False,
    as_json: AsJson = False,
    settings: SettingsFile = None,
) -> None:
    """Fit the network to one laboratory's smears.

    Writes a file that takes effect once model.site_calibration names it.
    """
    from listener.cli import calibrate as calibration

    calibration.check_usage(packs or (), from_reviews=reviews, source=source, site=site)
    calibration.check_out(out)
    laboratory = _reader(settings)()
    if reviews:
        cells, network = calibration.cells_of_reviews(
            laboratory, normal_cells_only=normal_cells_only
        )
    else:
        cells, network = calibration.cells_of_packs(
            packs or (),
            source=source,
            normal_cells_only=normal_cells_only,
            settings=laboratory,
        )
    done = calibration.calibrate(
        cells,
        network,
        site=site,
        made_from="reviews" if reviews else "packs",
        out=out,
        even_if_not_better=even_if_not_better,
    )
    if as_json:
        _print_line(done.to_json())
    else:
        for line in calibration.lines_of(done):
            typer.echo(line)
    calibration.refuse_unwritten(done)


@app.command()
def agreement(settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """Compare the network with its reviewers, cell by cell."""
    from listener.cli.review import agreement_of, lines_of

    found = agreement_of(_reader(settings)())
    if as_json:
        _print_line(found.to_json())
        return
    for line in lines_of(found):
        typer.echo(line)


@app.command(name="export-corrections")
def export_corrections(
    out: Annotated[Path, typer.Argument(help="New folder for the pack.")],
    settings: SettingsFile = None,
) -> None:
    """Write reviewed cells as a data pack, pseudonymised."""
    from listener.cli.review import export_corrections as export_pack

    done = export_pack(_reader(settings)(), out)
    typer.echo(f"{done.cells} cells written to {out}")
    if done.without_image or done.at_the_edge:
        typer.echo(
            f"left out: {done.without_image} whose image is gone or may not leave, "
            f"{done.at_the_edge} at the edge of their picture"
        )


# --- beside a service


@app.command()
def status(settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show queues, and what was parked and why."""
    from listener.cli.status import show_status

    with _at_work(settings) as (client, _):
        now = client.status()
    if as_json:
        _print_line(now.to_json())
    else:
        show_status(now)


@app.command()
def retry(
    key: Annotated[
        str, typer.Argument(help="Key of parked work, or an image, smear or destination.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything that is parked.")] = False,
    settings: SettingsFile = None,
) -> None:
    """Try parked work again."""
    if bool(key) == everything:
        raise Rejected("Give either a KEY as `smearlink status` shows it, or --all", code="usage")
    from listener.cli.operator_acts import record_retries, recorded_acts
    from listener.queue.parked import is_named

    count = 0
    with _at_work(settings) as (client, _):
        meant = [one for one in client.status().parked if everything or is_named(one, key)]
        if meant:
            with recorded_acts(_reader(settings)()) as record:
                count = client.retry_all() if everything else client.retry(key)
                record_retries(record, meant)
    if not count:
        what = "Nothing is parked" if everything else f"Nothing that is parked is named {key}"
        typer.echo(f"{what}; `smearlink status` shows what is")
        raise typer.Exit(NEEDS_PERSON)
    typer.echo(f"{count} queued again")


@app.command()
def close(
    smear: Annotated[str, typer.Argument(help="Series UID, or the smear's id.")],
    settings: SettingsFile = None,
) -> None:
    """Report a smear now, without its quiet time."""
    from listener.cli.operator_acts import recorded_acts
    from pipeline.domain import SmearId
    from reporting.audit.schema import Event

    smear_id = SmearId(smear)
    with _at_work(settings) as (client, store):
        is_there = smear_id in store.results.smears() or any(client.unfinished_images(smear_id))
        if is_there:
            with recorded_acts(_reader(settings)()) as record:
                client.close_smear(smear_id)
                record(Event.SMEAR_CLOSED, smear_id=smear_id, trigger="person")
    if not is_there:
        typer.echo(
            f"Nothing of a smear named {smear} is analysed or waits. Give its series UID or, "
            "where smears are gathered by specimen, its smear_id as `smearlink audit show` has it"
        )
        raise typer.Exit(NEEDS_PERSON)
    typer.echo("requested; `smearlink status` shows when it is done")


@app.command(name="move-queue")
def move_queue(
    old_url: Annotated[
        str, typer.Option("--from", help="URL of the old database; by default the site's SQLite.")
    ] = "",
    settings: SettingsFile = None,
) -> None:
    """Move the queue to the database of the settings.

    Stop every service first.
    """
    from listener.cli.move_queue import move_site
    from listener.cli.operator_acts import recorded_acts
    from reporting.audit.schema import Event

    site = _reader(settings)()
    with recorded_acts(site) as record:
        count = move_site(site, old_url=old_url)
        record(Event.QUEUE_MOVED, count=count)
    typer.echo(f"{count} jobs moved; the old database is unchanged")


@app.command()
def check(
    settings: SettingsFile = None,
    route: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Explain which routes would match this DICOM file."
        ),
    ] = None,
    calling: Annotated[
        str, typer.Option(help="With --route: the AE title that would send it.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check settings, model and every destination.

    Nothing is sent but C-ECHO and requests that change nothing.
    """
    from listener.cli.check import check_all, explain_route
    from listener.cli.console import show_checks, show_route

    site = _reader(settings)()
    if route is not None:
        matches = explain_route(site, route, calling_ae=calling)
        _print_line(matches.to_json()) if as_json else show_route(matches)
        return
    checks = check_all(site)
    _print_line([one.to_json() for one in checks]) if as_json else show_checks(checks)
    raise typer.Exit(0 if all(one.is_good for one in checks) else NEEDS_PERSON)


# --- the audit trail


@audit_app.command()
def verify(
    directory: Annotated[Path | None, typer.Argument(help="Folder of the trail.")] = None,
    public_key: Annotated[
        Path | None, typer.Option("--key", help="Public key; by default beside the site's own.")
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Find any change made to the trail since it was signed."""
    from listener.cli.audit import verify_audit

    raise typer.Exit(0 if verify_audit(_reader(settings)(), directory, public_key, as_json) else 1)


@audit_app.command()
def show(
    directory: Annotated[Path | None, typer.Argument(help="Folder of the trail.")] = None,
    study: Annotated[str, typer.Option(help="Study Instance UID.")] = "",
    image: Annotated[str, typer.Option(help="SOP Instance UID.")] = "",
    accession: Annotated[str, typer.Option(help="Accession number; only its hash is kept.")] = "",
    ae: Annotated[str, typer.Option(help="AE title.")] = "",
    outcome: Annotated[str, typer.Option(help="success, minor_failure, …")] = "",
    since: Annotated[str, typer.Option(help="ISO time, e.g. 2026-11-24T08:00Z.")] = "",
    until: Annotated[str, typer.Option(help="ISO time.")] = "",
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show events in order: who did what, to which image."""
    from listener.cli.audit import show_audit

    asked = {
        "study": study,
        "image": image,
        "accession": accession,
        "ae": ae,
        "outcome": outcome,
        "since": since,
        "until": until,
    }
    show_audit(_reader(settings)(), directory, asked, as_json)


@audit_app.command()
def export(
    out: Annotated[Path, typer.Option(help="File to write.")],
    form: Annotated[
        str, typer.Option("--format", help="dicom (PS3.15 A.5 messages) or fhir (AuditEvent).")
    ] = "fhir",
    directory: Annotated[Path | None, typer.Argument(help="Folder of the trail.")] = None,
    settings: SettingsFile = None,
) -> None:
    """Write it as DICOM Audit Messages or AuditEvents."""
    from listener.cli.audit import export_audit

    count = export_audit(_reader(settings)(), directory, out, form)
    typer.echo(f"{count} events written to {out}")


# --- the console's accounts

Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="viewer, reviewer, operator, auditor, administrator; repeatable."),
]
FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, '.', '_', '-', '@'.")],
    role: Roles = None,
    full_name: Annotated[str, typer.Option(help="As results name the person.")] = "",
    password_stdin: FromInput = False,
    settings: SettingsFile = None,
) -> None:
    """Make an account; asks for its password."""
    from listener.cli.user import add_user

    site = _reader(settings)()
    add_user(site, name, _password(password_stdin), role or [], full_name)


@user_app.command("list")
def user_list(settings: SettingsFile = None) -> None:
    """Show every account with its roles."""
    from listener.cli.user import list_users

    list_users(_reader(settings)())


@user_app.command("disable")
def user_disable(
    name: Annotated[str, typer.Argument(help="The account.")],
    enable: Annotated[bool, typer.Option("--enable", help="Let the person in again.")] = False,
    settings: SettingsFile = None,
) -> None:
    """Keep somebody out; their sessions end at once."""
    from listener.cli.user import disable_user

    disable_user(_reader(settings)(), name, is_disabled=not enable)


@user_app.command("reset")
def user_reset(
    name: Annotated[str, typer.Argument(help="The account.")],
    role: Roles = None,
    keep_password: Annotated[
        bool, typer.Option("--keep-password", help="Change the roles alone.")
    ] = False,
    password_stdin: FromInput = False,
    settings: SettingsFile = None,
) -> None:
    """Set another password or other roles.

    The account's sessions end.
    """
    from listener.cli.user import reset_user

    site = _reader(settings)()
    reset_user(site, name, None if keep_password else _password(password_stdin), role or [])


def _password(from_input: bool) -> str:
    """Never an argument: those are seen in the process list and kept in histories."""
    if from_input:
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


# --- shared


def _reader(path: Path | None) -> Callable[[], Settings]:
    """Reads the settings, now and again at each reload."""
    from config.settings import load_settings

    return lambda: load_settings(path, os.environ)


@contextmanager
def _at_work(path: Path | None) -> Iterator[tuple[QueueClient, Store]]:
    """The queue and the data folder of a service, whether it runs or not."""
    from listener.queue.client import QueueClient
    from listener.storage.data_folder import open_store

    site = _reader(path)()
    store = open_store(site, worker_id=site.worker_id)
    client = QueueClient(site.database_url, inbox=store.inbox, gather_by=site.smear.gather_by)
    try:
        yield client, store
    finally:
        client.close()


def _print_line(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)  # noqa: T201
