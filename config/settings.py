"""The settings of a site: one frozen value, read once, right in every key or refused.

    settings = load_settings(Path("smearlink.toml"), os.environ)
    settings.dicom.port, settings.audit_dir, settings.destinations

Sections are in `config.sections` and `config.destinations`, meanings in `default.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.error_messages import SettingsError, explain
from config.model import Settings
from config.sources import merge, read_defaults, read_environment, read_file
from config.validation import check_files, check_together

RELOADABLE = ("destinations", "routes")


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


def check_reload(old: Settings, new: Settings) -> Settings:
    """`new` if it differs from `old` in destinations and routes only; SettingsError otherwise."""
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
