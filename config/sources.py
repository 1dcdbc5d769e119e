"""Reads what the settings are made of: default.toml, the site's file, the environment.

Later ones win, key by key; lists (destinations, routes, peers) are replaced as a whole.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from config.error_messages import SettingsError, dotted_keys, key_types, models_in, nearest

PREFIX = "SMEARLINK_"
NOT_SETTINGS = ("SMEARLINK_SETTINGS", "SMEARLINK_TEST_")
"""The path of the site's file, and what tests use; every other variable is a setting."""


def default_text() -> str:
    """The text of default.toml."""
    return files("config").joinpath("default.toml").read_text(encoding="utf-8")


def read_defaults() -> dict[str, Any]:
    """default.toml as a table."""
    return tomllib.loads(default_text())


def read_file(path: Path) -> dict[str, Any]:
    """The site's TOML file as a table; SettingsError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise SettingsError(
            [f"{path}: there is no such file; name an existing one or leave --settings out."]
        ) from err
    except OSError as err:
        raise SettingsError([f"{path}: cannot be read ({err.strerror})."]) from err
    except UnicodeDecodeError as err:
        raise SettingsError([f"{path}: is not UTF-8 text (byte {err.start})."]) from err
    except tomllib.TOMLDecodeError as err:
        raise SettingsError([f"{path}: is not valid TOML: {err}."]) from err


def read_environment(env: Mapping[str, str], model: type[BaseModel]) -> dict[str, Any]:
    """Every SMEARLINK_SECTION__KEY as a table; a name that is no key of `model` is an error."""
    table: dict[str, Any] = {}
    problems = []
    for name, text in sorted(env.items()):
        if not name.startswith(PREFIX) or name.startswith(NOT_SETTINGS):
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        annotation = _type_at(path, model)
        if annotation is None:
            hint = nearest(name, variable_names(model))
            problems.append(f"{name}: there is no such setting.{hint}")
        else:
            table = merge(table, _nest(path, _parse(text, annotation)))
    if problems:
        raise SettingsError(problems)
    return table


def variable_names(model: type[BaseModel]) -> Iterable[str]:
    """The environment variable of each key; lists of tables are given whole, as JSON."""
    for key in dotted_keys(model):
        if _type_at(key.split("."), model) is not None:
            yield PREFIX + key.upper().replace(".", "__")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: tables are joined, anything else is replaced."""
    joined = dict(below)
    for key, value in above.items():
        lower = joined.get(key)
        if isinstance(lower, Mapping) and isinstance(value, Mapping):
            joined[key] = merge(lower, value)
        else:
            joined[key] = value
    return joined


def _nest(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def _type_at(path: list[str], model: type[BaseModel]) -> Any:
    """The type of the key at `path`; None when there is none or it lies inside a list."""
    inner: Any = model
    for part in path:
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        inner = key_types(inner).get(part)
    return inner


def _parse(text: str, annotation: Any) -> Any:
    """JSON where the key takes a list or a table, the bare text where it takes one value."""
    if text[:1] in ("[", "{") and (models_in(annotation) or _is_list(annotation)):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    if _is_list(annotation) and not models_in(annotation):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _is_list(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is tuple
