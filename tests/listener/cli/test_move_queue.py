"""Waiting work goes from one database to the other, once, and not from under a living worker."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from config.model import Settings
from config.settings import make_settings
from listener.cli.move_queue import move_queue, move_site
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import close_job, image_job
from listener.queue.worker_lock import FileLocks, worker_locks
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import NeedsReview, Rejected, RetryLater
from tests.listener.house import open_queue

SMEAR = SmearId("1.2.3")


@pytest.fixture
def old_url(tmp_path: Path) -> str:
    """A queue with an image that was begun twice, and a smear that waits for its quiet time."""
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    with closing(open_queue(tmp_path, url)) as queue:
        job = image_job(SOPInstanceUID("1.2.3.1"), SMEAR)
        queue.enqueue(job)
        queue.note_starts(job.id, 2)
        queue.enqueue(close_job(SMEAR, trigger="1.2.3.1", known=1, delay_s=3600.0))
    return url


def site(root: Path, url: str) -> Settings:
    return make_settings({"service": {"data_dir": str(root)}, "database": {"url": url}})


def test_the_same_database_twice_is_refused(tmp_path: Path, old_url: str) -> None:
    with pytest.raises(Rejected) as caught:
        move_site(site(tmp_path, ""))

    assert "database.url" in caught.value.message


def test_nothing_is_moved_from_under_a_living_worker(tmp_path: Path, old_url: str) -> None:
    new_url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    hold = FileLocks(tmp_path / "workers").try_take("w1")
    assert hold is not None

    with closing(hold), pytest.raises(NeedsReview) as caught:
        move_site(site(tmp_path, new_url))

    assert caught.value.code == "service_running"
    assert "w1" in caught.value.message
    assert not (tmp_path / "new.sqlite").exists()


def test_an_old_database_that_is_not_there_is_said(tmp_path: Path) -> None:
    old, new = (f"sqlite:///{tmp_path / name}.sqlite" for name in ("absent", "new"))

    with pytest.raises(RetryLater) as caught:
        move_queue(
            old,
            new,
            open_queue=partial(open_queue, tmp_path),
            locks=worker_locks(old, folder=tmp_path),
        )

    assert caught.value.code == "no_queue_yet"


def test_work_arrives_with_its_arguments_delay_and_starts(tmp_path: Path, old_url: str) -> None:
    new_url = f"sqlite:///{tmp_path / 'new.sqlite'}"

    moved = move_site(site(tmp_path, new_url))

    with (
        closing(open_queue(tmp_path, new_url)) as new,
        closing(open_queue(tmp_path, old_url)) as old,
    ):
        assert moved == 2
        assert [row.arguments for row in new.left()] == [row.arguments for row in old.left()]
        rows = {row.id: row for row in new.left()}
        assert rows["image:1.2.3.1"].starts == 2
        assert rows["close:1.2.3:1.2.3.1"].delay_s == 3600.0
        assert rows["close:1.2.3:1.2.3.1"].is_delayed


def test_carrying_twice_is_carrying_once(tmp_path: Path, old_url: str) -> None:
    new_url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    move_site(site(tmp_path, new_url))

    move_site(site(tmp_path, new_url))

    with closing(open_queue(tmp_path, new_url)) as queue:
        assert list(queue.unfinished_images(SMEAR)) == ["1.2.3.1"]
