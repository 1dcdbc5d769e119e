"""Settings are right in every key, or the start is refused with the key and the way out."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.destinations import (
    DestinationSettings,
    DicomDestination,
    FhirDestination,
    FolderDestination,
    Hl7Destination,
    RouteSettings,
    StowDestination,
)
from config.error_messages import SettingsError, key_types, models_in
from config.model import Settings
from config.sections import PeerSettings
from config.settings import check_reload, load_settings, make_settings
from config.sources import default_text, read_defaults
from pipeline.errors import Rejected

PACS = {"name": "pacs", "type": "dicom", "ae_title": "PACS", "host": "pacs", "port": 104}


def problems_of(table: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        make_settings(table)
    assert isinstance(caught.value, Rejected)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"dicom": {"prot": 1}}, "dicom.prot: there is no such key. Did you mean port?"),
        ({"dicmo": {}}, "dicmo: there is no such key. Did you mean dicom?"),
        ({"web": {"ae_title": "A"}}, "web.ae_title: there is no such key. Did you mean dicom.ae_"),
        ({"dicom": {"port": 99999}}, "dicom.port: should be less than or equal to 65535, but is"),
        ({"dicom": {"ae_title": "A\\B"}}, "dicom.ae_title: an AE title has 1 to 16 characters"),
        ({"dicom": {"ae_title": " "}}, "dicom.ae_title"),
        ({"smear": {"gather_by": "serie"}}, "series, specimen, but is 'serie'. Did you mean serie"),
        ({"smear": {"quiet_s": float("nan")}}, "smear.quiet_s"),
        ({"results": {"kinds": []}}, "results.kinds: is empty"),
        ({"results": {"timezone": "Mars/Olympus"}}, "results.timezone: no such time zone"),
        ({"database": {"url": "mysql://a"}}, "database.url: must be empty (SQLite in data_dir)"),
        ({"model": {"folder": "/nowhere/at/all"}}, "model.folder: there is no folder"),
        ({"destination": [{"name": "x"}]}, "destination[x].type: is missing"),
        ({"destination": [PACS | {"type": "dicm"}]}, "Did you mean dicom?"),
        ({"destination": [PACS | {"hots": 1}]}, "destination[pacs].hots: there is no such key. Di"),
        ({"destination": [PACS | {"name": "A b"}]}, "a name has 1 to 40 lower-case letters"),
        ({"destination": [PACS, PACS]}, "destination[pacs]: stands 2 times"),
        ({"destination": [{"name": "f", "type": "folder"}]}, "destination[f].path: is missing"),
        ({"destination": [{"name": "f", "type": "folder", "path": ""}]}, "path: is empty"),
        ({"destination": [{"name": "f", "type": "fhir"}]}, "url is missing"),
        ({"destination": [{"name": "f", "type": "fhir", "mode": "ndjson"}]}, "folder is missing"),
        ({"destination": [{"name": "s", "type": "stow", "url": ""}]}, "url is empty"),
        ({"destination": [PACS | {"max_delay_s": 1}]}, "max_delay_s is below first_delay_s"),
        ({"destination": [PACS | {"host": "127.0.0.1", "port": 11112}]}, "is our own listener's"),
        ({"destination": [PACS | {"tls": {"certificate": "/x"}}]}, "go together"),
        ({"route": [{"name": "r", "to": ["pacs"]}]}, "there is no destination 'pacs'"),
        (
            {"destination": [PACS], "route": [{"name": "r", "to": ["pasc"]}]},
            "route[r].to: there is no destination 'pasc'. Did you mean pacs?",
        ),
        ({"web": {"port": 11112}}, "web.port: is 11112, which dicom.port has taken"),
        ({"web": {"host": "0.0.0.0"}}, "web.host: is 0.0.0.0, where anybody could send"),
        ({"dicom": {"tls": {"enabled": True}}}, "dicom.tls: is enabled without certificate"),
        ({"dicom": {"peer": [{"ae_title": "A", "addresses": ["x"]}]}}, "dicom.peer[A].addresses"),
        ({"web": {"token_file": "/nowhere/token"}}, "web.token_file: there is no file"),
        ({"model": {"site_calibration": f"/{'a' * 300}"}}, "cannot be reached (OSError)"),
    ],
)
def test_unusable_settings_name_the_key_and_the_rule(table: dict[str, Any], expected: str) -> None:
    assert expected in problems_of(table)


@pytest.mark.parametrize(
    ("oauth", "expected"),
    [
        ({"client_id": "a"}, "token_url is missing"),
        ({"token_url": "https://a"}, "client_id is missing"),
        ({"token_url": "https://a", "client_id": "a"}, "either client_secret_file or"),
        ({"token_url": "https://a", "client_id": "a", "private_key_file": "/k"}, "key_id is miss"),
    ],
)
def test_half_given_oauth_is_refused(oauth: dict[str, str], expected: str) -> None:
    place = {"name": "e", "type": "fhir", "url": "https://ehr/fhir", "oauth": oauth}

    assert expected in problems_of({"destination": [place]})


def test_all_problems_are_told_at_once() -> None:
    told = problems_of({"dicom": {"port": -1}, "smear": {"gather_by": 3}, "nothing": 1})

    assert len(told.splitlines()) == 3


def test_secrets_are_never_shown() -> None:
    place = {
        "name": "e",
        "type": "stow",
        "url": "https://user:s3cret@x/",
        "headers": {"Authorization": ["s3cret"]},
    }

    told = problems_of({"destination": [place], "database": {"url": "mysql://u:s3cret@h"}})

    assert "s3cret" not in told
    assert "s3cret" not in repr(make_settings({"database": {"url": "postgresql://u:s3cret@h/d"}}))


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("x")
    (tmp_path / "key.pem").chmod(0o644)
    tls = {
        "enabled": True,
        "certificate": "cert.pem",
        "private_key": "key.pem",
        "ca_certificates": "ca.pem",
    }
    file = tmp_path / "site.toml"
    file.write_text("[dicom.tls]\n" + "\n".join(f"{k} = {_toml(v)}" for k, v in tls.items()))

    with pytest.raises(SettingsError, match=r"dicom.tls.private_key: .* run chmod 600"):
        load_settings(file)

    (tmp_path / "key.pem").chmod(0o600)
    assert load_settings(file).dicom.tls.private_key == tmp_path / "key.pem"


def _toml(value: object) -> str:
    return "true" if value is True else f'"{value}"'


def test_a_file_that_is_no_toml_or_no_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "a.toml"
    broken.write_text("[dicom\nport=1")
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe")

    for path, words in [
        (broken, "is not valid TOML"),
        (binary, "is not UTF-8"),
        (tmp_path, "cannot be read"),
        (tmp_path / "absent.toml", "there is no such file"),
    ]:
        with pytest.raises(SettingsError, match=words):
            load_settings(path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SMEARLINK_DICOM_PORT", "Did you mean SMEARLINK_DICOM__PORT?"),
        ("SMEARLINK_DICOM__PORTS", "Did you mean SMEARLINK_DICOM__PORT?"),
        ("SMEARLINK_DESTINATION__0__HOST", "there is no such setting"),
    ],
)
def test_an_unknown_variable_is_refused(name: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {name: "1"})

    assert hint in str(caught.value)


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('[dicom]\nport = 104\nae_title = "FROMFILE"\n')
    env = {
        "SMEARLINK_DICOM__PORT": "4242",
        "SMEARLINK_DICOM__ALLOWED_CALLING_AES": "CAM1, CAM2",
        "SMEARLINK_MODEL__PROVIDERS": '["CPUExecutionProvider"]',
        "SMEARLINK_WEB__TLS__ENABLED": "false",
        "SMEARLINK_DESTINATION": '[{"name": "out", "type": "folder", "path": "out"}]',
        "SMEARLINK_SETTINGS": "elsewhere.toml",
        "SMEARLINK_TEST_DATA": "somewhere",
        "HOME": "/root",
    }

    settings = load_settings(file, env)

    assert settings.dicom.port == 4242
    assert settings.dicom.ae_title == "FROMFILE"
    assert settings.dicom.allowed_calling_aes == ("CAM1", "CAM2")
    assert settings.model.providers == ("CPUExecutionProvider",)
    place = settings.destinations[0]
    assert isinstance(place, FolderDestination)
    assert place.path == tmp_path / "out"


def test_broken_json_in_a_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match="destination"):
        load_settings(None, {"SMEARLINK_DESTINATION": "[{"})


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_no_variable_text_can_do_more_than_be_refused(key: str, text: str) -> None:
    for name in (f"SMEARLINK_{key}", "SMEARLINK_DICOM__ALLOWED_CALLING_AES", "SMEARLINK_ROUTE"):
        try:
            settings = load_settings(None, {name: text})
        except SettingsError:
            continue
        assert isinstance(settings, Settings)


def test_a_reload_takes_destinations_and_routes_only(tmp_path: Path) -> None:
    old = load_settings(None)
    file = tmp_path / "site.toml"
    file.write_text(
        '[[destination]]\nname = "out"\ntype = "folder"\npath = "out"\n'
        '[[route]]\nname = "all"\nto = ["out"]\n'
    )

    new = check_reload(old, load_settings(file))

    assert [place.name for place in new.destinations] == ["out"]
    file.write_text("[dicom]\nport = 1042\n")
    with pytest.raises(SettingsError, match="dicom: was changed, which needs a restart"):
        check_reload(old, load_settings(file))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(None).dicom.port = 1  # type: ignore[misc]


def test_folders_follow_from_the_data_folder(tmp_path: Path) -> None:
    settings = make_settings({"service": {"data_dir": str(tmp_path), "worker_id": "w1"}})

    assert settings.audit_dir == tmp_path / "audit"
    assert settings.audit_key_file == tmp_path / "audit.key"
    assert settings.database_url == f"sqlite:///{tmp_path}/state.sqlite"
    assert settings.worker_id == "w1"
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", make_settings({}).worker_id)


# default.toml documents every key


def examples() -> dict[str, Any]:
    """The commented-out tables of default.toml, read as TOML."""
    lines = [line.removeprefix("# ") for line in default_text().splitlines() if line[:2] == "# "]
    toml = [line for line in lines if re.match(r"\[\[|[a-z0-9_.]+ = \S", line)]
    return tomllib.loads("\n".join(toml))


def test_default_toml_holds_the_defaults_of_the_models() -> None:
    assert make_settings(read_defaults()) == Settings()


def test_every_key_of_every_section_stands_in_default_toml() -> None:
    def keys(table: dict[str, Any], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in table.items():
            inner = keys(value, f"{prefix}{key}.") if isinstance(value, dict) else set()
            found |= inner or {prefix + key}
        return found

    def model_keys(model: Any, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, annotation in key_types(model).items():
            inner = models_in(annotation)
            if annotation in inner:
                found |= model_keys(annotation, f"{prefix}{key}.")
            elif not inner:
                found.add(prefix + key)
        return found

    assert keys(read_defaults()) == model_keys(Settings)


@pytest.mark.parametrize(
    "model",
    [DicomDestination, StowDestination, FhirDestination, FolderDestination, Hl7Destination],
)
def test_every_key_of_every_destination_stands_in_default_toml(model: Any) -> None:
    shown: dict[str, Any] = {}
    for place in examples()["destination"]:
        shown |= {key: shown.get(key, place[key]) for key in place}
    for key, field in model.model_fields.items():
        assert key in shown, f"{key} of {model.__name__} is not explained"
        if not field.is_required() and key not in ("url", "folder"):
            default = field.get_default(call_default_factory=True)
            again = model.model_validate(_required(model) | {key: shown[key]})
            assert getattr(again, key) == default, f"{key} is shown with another value"


def _required(model: Any) -> dict[str, Any]:
    of_type: dict[Any, dict[str, Any]] = {
        DicomDestination: {"type": "dicom", "ae_title": "A", "host": "a", "port": 1},
        StowDestination: {"type": "stow", "url": "https://a"},
        FhirDestination: {"type": "fhir", "url": "https://a"},
        FolderDestination: {"type": "folder", "path": "a"},
        Hl7Destination: {"type": "hl7", "host": "a", "port": 1},
    }
    return {"name": "a", **of_type[model]}


def test_every_key_of_routes_and_peers_stands_in_default_toml() -> None:
    shown = examples()

    assert set(shown["route"][0]) == set(RouteSettings.model_fields)
    assert set(shown["dicom"]["peer"][0]) == set(PeerSettings.model_fields)


def test_the_examples_of_default_toml_can_be_used_as_they_stand() -> None:
    table = examples()
    models = models_in(DestinationSettings)

    settings = make_settings(table)

    assert [type(place) for place in settings.destinations] == models


def test_every_key_has_a_comment_or_stands_under_one() -> None:
    lines = default_text().splitlines()
    bare = [
        line
        for above, line in itertools.pairwise(lines)
        if re.match(r"[a-z_]+ = ", line) and not above
    ]

    assert bare == []
