"""Checks that look at more than one key, or at the disk."""

from __future__ import annotations

import ipaddress
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from config.destinations import DicomDestination, Hl7Destination
from config.error_messages import key_types, nearest
from config.model import Settings

MUST_EXIST = (
    "certificate",
    "private_key",
    "ca_certificates",
    "client_secret_file",
    "private_key_file",
    "token_file",
    "pdf_font",
    "site_calibration",
)
"""Keys that name a file which the site brings; the others are made when they are missing."""
SECRET_FILES = ("private_key", "client_secret_file", "private_key_file", "token_file", "key_file")
OTHERS_MAY = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
"""What nobody else may do with a secret file; a group may read it (Debian's ssl-cert)."""


def check_together(settings: Settings) -> Iterator[str]:
    """Problems between keys."""
    yield from _twice("destination", [place.name for place in settings.destinations])
    yield from _twice("route", [route.name for route in settings.routes])
    yield from _twice("dicom.peer", [peer.ae_title for peer in settings.dicom.peers])
    yield from _unknown_targets(settings)
    yield from _shared_ports(settings)
    yield from _sends_to_itself(settings)
    yield from _tls_without_key(settings)
    yield from _open_web(settings)
    yield from _bad_addresses(settings)
    yield from _console(settings)
    if not settings.results.kinds:
        yield "results.kinds: is empty; name at least one kind, or nothing would be reported."


def check_files(settings: Settings) -> Iterator[str]:
    """Files that must exist and are missing, and secrets that others can read."""
    for key, path in _paths(settings):
        name = key.split(".")[-1]
        try:
            is_there = path.is_file()
        except OSError as err:
            yield f"{key}: {path} cannot be reached ({type(err).__name__}); correct path or rights."
            continue
        if name in MUST_EXIST and not is_there:
            yield f"{key}: there is no file {path}; put it there or correct the path."
        elif name in SECRET_FILES and is_there and path.stat().st_mode & OTHERS_MAY:
            yield f"{key}: {path} can be read or changed by others; run chmod 600 on it."
    folder = settings.model.folder
    if folder is not None and not folder.is_dir():
        yield f"model.folder: there is no folder {folder}; leave it empty for the model we bring."


def _twice(table: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{table}[{name}]: stands {count} times; every {table} needs a name of its own."


def _unknown_targets(settings: Settings) -> Iterator[str]:
    known = [place.name for place in settings.destinations]
    for route in settings.routes:
        for target in route.to:
            if target not in known:
                yield (
                    f"route[{route.name}].to: there is no destination {target!r}."
                    f"{nearest(target, known)}"
                )


def _shared_ports(settings: Settings) -> Iterator[str]:
    dicom, web = settings.dicom, settings.web
    if dicom.enabled and web.enabled and dicom.port == web.port != 0:
        yield f"web.port: is {web.port}, which dicom.port has taken; give it another."


def _sends_to_itself(settings: Settings) -> Iterator[str]:
    """A destination that is our own listener would feed our results back to us."""
    for place in settings.destinations:
        if isinstance(place, DicomDestination | Hl7Destination) and place.port != 0:
            ours = (settings.dicom.host, settings.dicom.port)
            if settings.dicom.enabled and (place.host, place.port) == ours:
                yield f"destination[{place.name}].port: is our own listener's; name the PACS."


def _tls_without_key(settings: Settings) -> Iterator[str]:
    for name, tls in (("dicom.tls", settings.dicom.tls), ("web.tls", settings.web.tls)):
        if not tls.enabled:
            continue
        if tls.certificate is None or tls.private_key is None:
            yield f"{name}: is enabled without certificate and private_key; give both files."
        if tls.require_client_certificate and tls.ca_certificates is None:
            yield (
                f"{name}.ca_certificates: is empty while client certificates are required; "
                "give the file of the authority that signs them."
            )
    for place in settings.destinations:
        tls_client = getattr(place, "tls", None)
        if tls_client and (tls_client.certificate is None) != (tls_client.private_key is None):
            yield f"destination[{place.name}].tls: certificate and private_key go together."


def _open_web(settings: Settings) -> Iterator[str]:
    """STOW-RS on the network must know who sends (DICOM has its AE titles, HTTP nothing)."""
    web = settings.web
    is_guarded = web.token_file or (web.tls.enabled and web.tls.require_client_certificate)
    if web.enabled and web.stow and not is_guarded and not is_loopback(web.host):
        yield (
            f"web.host: is {web.host}, where anybody could send images; set web.token_file, "
            "or web.tls with client certificates, or web.stow = false."
        )


def _bad_addresses(settings: Settings) -> Iterator[str]:
    for peer in settings.dicom.peers:
        for address in peer.addresses:
            try:
                ipaddress.ip_network(address, strict=False)
            except ValueError:
                yield (
                    f"dicom.peer[{peer.ae_title}].addresses: {address!r} is neither an IP "
                    "address nor a network such as 10.1.0.0/16."
                )


def _console(settings: Settings) -> Iterator[str]:
    console = settings.console
    for address in console.proxy.addresses:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            yield (
                f"console.proxy.addresses: {address!r} is neither an IP address nor a network "
                "such as 10.1.0.0/16."
            )
    again = console.proxy.sign_in_again_url
    if again and not again.startswith(("https://", "http://", "/")):
        yield "console.proxy.sign_in_again_url: must begin with https://, http:// or /."
    for name, (low, high) in console.reference_ranges.items():
        if not 0 <= low <= high <= 100:
            yield f"console.reference_ranges.{name}: give [low, high] in percent, 0 to 100."
    oidc = console.oidc
    if oidc.issuer and not (oidc.client_id and oidc.redirect_url):
        yield "console.oidc: issuer is set without client_id and redirect_url; give all three."
    if oidc.issuer and not oidc.issuer.startswith(
        ("https://", "http://127.0.0.1", "http://localhost")
    ):
        yield "console.oidc.issuer: must begin with https://."


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _paths(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Every path that is set, with its dotted key."""
    for key, name in zip(key_types(type(section)), type(section).model_fields, strict=True):
        yield from _paths_in(getattr(section, name), prefix + key)


def _paths_in(value: Any, key: str) -> Iterator[tuple[str, Path]]:
    match value:
        case Path():
            yield key, value
        case BaseModel():
            yield from _paths(value, f"{key}.")
        case tuple():
            for place, member in enumerate(value, start=1):
                yield from _paths_in(member, f"{key}[{getattr(member, 'name', place)}]")
