"""`site-calibration.toml`: the calibration of one laboratory, as `smearlink calibrate` writes it.

It holds no patient data: a name that the user gave the site, two numbers, counts and figures.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from models.site_calibration import Figures
from pipeline.domain import CalibrationIdentity, ModelIdentity
from pipeline.errors import Rejected

FORMAT = 1
LEAST_SLOPE, MOST_SLOPE = 0.2, 5.0
MOST_OFFSET = 8.0
LONGEST_SITE = 64
MOST_COUNT = 10**9
MOST_BYTES = 64 * 1024
"""A calibration has less than 2 KB."""
MADE_FROM = ("packs", "reviews")
TOP_KEYS = (
    *("format", "site", "made_on", "slope", "offset"),
    *("model", "made_from", "before", "after"),
)

_AGAIN = "Calibrate again with `smearlink calibrate`, or leave model.site_calibration empty."
_FIGURES = tuple(Figures.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCalibration:
    """Slope and offset of a laboratory, what they were made for and from, and what they bring."""

    site: str
    made_on: date
    model_name: str
    model_version: str
    slope: float
    offset: float
    made_from: str
    """packs or reviews."""
    smears: int
    leukemic_cells: int
    normal_cells: int
    before: Figures
    after: Figures
    sha256: str = ""
    """Of the file; empty until it was read from one."""

    @property
    def identity(self) -> CalibrationIdentity:
        """What results name."""
        return CalibrationIdentity(
            site=self.site,
            made_on=self.made_on.isoformat(),
            smears=self.smears,
            sha256=self.sha256,
        )


def check_site(name: str) -> str:
    """The name of a site; raises Rejected (calibration_site) for one that results cannot show."""
    if not _is_site(name):
        raise Rejected(
            f"The site's name must have 1 to {LONGEST_SITE} printable ASCII characters, which "
            "results of every kind can show, no backslash and no space at either end.",
            code="calibration_site",
        )
    return name


def check_numbers(slope: float, offset: float) -> None:
    """Raise Rejected (calibration_out_of_range) for a slope or an offset that no site needs."""
    if not (LEAST_SLOPE < slope < MOST_SLOPE and -MOST_OFFSET <= offset <= MOST_OFFSET):
        raise Rejected(
            f"The slope is {slope:.3g} and the offset {offset:.3g}; a calibration has a slope "
            f"between {LEAST_SLOPE} and {MOST_SLOPE} and an offset within ±{MOST_OFFSET:g}. The "
            "network cannot be used for these smears: check stain, camera and labels.",
            code="calibration_out_of_range",
        )


def as_toml(calibration: SiteCalibration) -> str:
    """The content of the file."""
    lines = [
        "# Calibration of the network for one laboratory, written by `smearlink calibrate`.",
        "# Its SHA-256 stands in every result; do not edit it. Research use only.",
        f"format = {FORMAT}",
        f"site = {json.dumps(calibration.site)}",
        f"made_on = {calibration.made_on.isoformat()}",
        f"slope = {calibration.slope!r}",
        f"offset = {calibration.offset!r}",
        "",
        "[model]",
        f"name = {json.dumps(calibration.model_name)}",
        f"version = {json.dumps(calibration.model_version)}",
        "",
        "[made_from]",
        f"kind = {json.dumps(calibration.made_from)}",
        f"smears = {calibration.smears}",
        f"leukemic_cells = {calibration.leukemic_cells}",
        f"normal_cells = {calibration.normal_cells}",
    ]
    for name in ("before", "after"):
        lines += ["", f"[{name}]"]
        if name == "after":
            lines.append("# Of smears left out of the fit.")
        figures = asdict(getattr(calibration, name))
        lines += [
            f"{key} = {round(value, 4)}" for key, value in figures.items() if value is not None
        ]
    return "\n".join(lines) + "\n"


def read_site_calibration(path: Path, model: ModelIdentity) -> SiteCalibration:
    """The calibration in a file, for this network.

    Raises Rejected: `calibration_unreadable` for a file that is missing, damaged, or has missing
    or unknown keys; `calibration_out_of_range`; `calibration_other_model` for another network or
    version.
    """
    calibration = parse_site_calibration(path)
    if (calibration.model_name, calibration.model_version) != (model.name, model.version):
        raise Rejected(
            f"{path} was made for {calibration.model_name} {calibration.model_version}; the "
            f"network in use is {model.name} {model.version}. {_AGAIN}",
            code="calibration_other_model",
        )
    return calibration


def parse_site_calibration(path: Path) -> SiteCalibration:
    """As `read_site_calibration`, whatever network it was made for."""
    try:
        content = _content(path)
        calibration = _calibration(
            tomllib.loads(content.decode("utf-8")), hashlib.sha256(content).hexdigest()
        )
    except OSError as err:
        raise _unreadable(path, f"cannot be read ({type(err).__name__})") from err
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise _unreadable(path, f"is no TOML file in UTF-8 ({type(err).__name__})") from err
    except KeyError as err:
        raise _unreadable(path, f"lacks the key {err.args[0]}") from err
    except (TypeError, ValueError) as err:
        raise _unreadable(path, str(err)) from err
    except (OverflowError, RecursionError) as err:
        raise _unreadable(path, f"is no calibration ({type(err).__name__})") from err
    check_numbers(calibration.slope, calibration.offset)
    return calibration


def _content(path: Path) -> bytes:
    """Of a regular file: a pipe would be waited for, and a device may have no end."""
    if not path.is_file():
        path.stat()
        raise ValueError("is no file")
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES} bytes, and is no calibration")
    return content


def _calibration(table: Mapping[str, Any], sha256: str) -> SiteCalibration:
    if _whole(table, "format") != FORMAT:
        raise ValueError(f"has another format than {FORMAT}")
    _check_keys(table, "", TOP_KEYS)
    model, made_from = _table(table, "model"), _table(table, "made_from")
    _check_keys(model, "model.", ("name", "version"))
    _check_keys(made_from, "made_from.", ("kind", "smears", "leukemic_cells", "normal_cells"))
    if not isinstance(table["made_on"], date) or isinstance(table["made_on"], datetime):
        raise TypeError("has no date in made_on")
    site = _text(table, "site")
    if not _is_site(site):
        raise ValueError("has a site that is no name")
    kind = _text(made_from, "kind")
    if kind not in MADE_FROM:
        raise ValueError(f"has a made_from.kind that is none of {', '.join(MADE_FROM)}")
    return SiteCalibration(
        site=site,
        made_on=table["made_on"],
        model_name=_text(model, "name"),
        model_version=_text(model, "version"),
        slope=_number(table, "slope"),
        offset=_number(table, "offset"),
        made_from=kind,
        smears=_whole(made_from, "smears"),
        leukemic_cells=_whole(made_from, "leukemic_cells"),
        normal_cells=_whole(made_from, "normal_cells"),
        before=_figures(table, "before"),
        after=_figures(table, "after"),
        sha256=sha256,
    )


def _figures(table: Mapping[str, Any], name: str) -> Figures:
    """Sensitivity stays out where the site had no leukemic cell."""
    told = _table(table, name)
    optional = ("sensitivity", "specificity", "called_leukemic")
    _check_keys(told, f"{name}.", _FIGURES, optional)
    shares = {key: _number(told, key) if key in told else None for key in optional}
    return Figures(
        sensitivity=shares["sensitivity"],
        specificity=shares["specificity"],
        called_leukemic=shares["called_leukemic"],
        referred=_number(told, "referred"),
        calibration_error=_number(told, "calibration_error"),
        log_loss=_number(told, "log_loss"),
    )


def _check_keys(
    table: Mapping[str, Any], where: str, known: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"has the unknown key {where}{key[:LONGEST_SITE]!r}")
    for key in known:
        if key not in table and key not in optional:
            raise KeyError(where + key)


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if not isinstance(table[key], dict):
        raise TypeError(f"has no table {key}")
    return dict(table[key])


def _text(table: Mapping[str, Any], key: str) -> str:
    if not isinstance(table[key], str) or not table[key].isprintable():
        raise TypeError(f"has no text in {key}")
    return str(table[key])


def _number(table: Mapping[str, Any], key: str) -> float:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"has no finite number in {key}")
    return float(value)


def _whole(table: Mapping[str, Any], key: str) -> int:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_COUNT:
        raise TypeError(f"has no count in {key}")
    return value


def _is_site(name: str) -> bool:
    is_short = 0 < len(name) <= LONGEST_SITE
    is_plain = name.isascii() and name.isprintable() and "\\" not in name
    return is_short and is_plain and name == name.strip()


def _unreadable(path: Path, what: str) -> Rejected:
    return Rejected(f"The site calibration {path} {what}. {_AGAIN}", code="calibration_unreadable")
