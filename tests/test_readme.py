"""What the README tells a newcomer to type is true of this version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.settings import load_settings
from listener.cli.app import app, audit_app, user_app

CHECKOUT = Path(__file__).resolve().parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(page.read_text(encoding="utf-8") for page in CHECKOUT.glob("docs/*.md"))]


def test_the_settings_shown_start_a_service(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    (tmp_path / "site.toml").write_text(block, encoding="utf-8")

    settings = load_settings(tmp_path / "site.toml", {})

    assert settings.dicom.allowed_calling_aes == ("SLIDECAM1",)
    assert [destination.name for destination in settings.destinations] == ["pacs", "ehr"]


def test_every_command_named_exists_and_every_command_is_named() -> None:
    known = {_name(command) for command in app.registered_commands}
    block = README.split("## Every command")[1].split("```")[1]

    named = {word for line in block.splitlines() if line for word in _commands(line)}

    assert named - {"audit", "user"} == known
    for command in (*audit_app.registered_commands, *user_app.registered_commands):
        assert _name(command) in block


def test_every_target_named_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.M))

    typed = re.compile(r"(?:`|^)make ([a-z-]+)", re.M)
    named = {target for page in PAGES for target in typed.findall(page)}

    assert named
    assert named <= targets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (CHECKOUT / page).read_text(encoding="utf-8"))

    missing = [link for link in links if "://" not in link and not (CHECKOUT / link).exists()]

    assert missing == []


def _name(command: object) -> str:
    callback = command.callback  # type: ignore[attr-defined]  # typer keeps it untyped
    return str(command.name or callback.__name__)  # type: ignore[attr-defined]


def _commands(line: str) -> list[str]:
    words = re.match(r"smearlink ((?:[a-z-]+(?: \| )?)+)", line)
    assert words, line
    return words[1].strip().split(" | ") if "audit" not in line else ["audit"]
