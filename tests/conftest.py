"""Fixtures for every room: the real images where they are at hand, and quick property tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also where a test imports onnxruntime itself

settings.register_profile(
    "smearlink",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("smearlink")

CHECKOUT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=200, help="kills of the long durability run")


def pytest_collection_finish() -> None:
    """What was imported is no garbage: no search for that need go through it again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """fsync comes back at once: nothing here cuts the power of this process.

    Tests that ask whether and when it is called put a watcher in its place, and
    acceptance/test_power_cut.py traces a process of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The pack of real smear images, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("SMEARLINK_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no smear images: {folder.name}/manifest.csv absent; set SMEARLINK_TEST_DATA")
    return folder
