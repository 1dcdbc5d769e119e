"""A worker's lock dies with it and not before; two processes never work under one name."""

from __future__ import annotations

import multiprocessing
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from listener.queue.worker_lock import FileLocks, claim_worker, worker_locks
from pipeline.errors import NeedsReview, RetryLater


def hold_for_ever(folder: Path, wire: Connection) -> None:
    hold = FileLocks(folder).try_take("w1")
    wire.send(hold is not None)
    wire.recv()


def test_a_killed_worker_s_lock_is_free_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=hold_for_ever, args=(tmp_path, there))
    process.start()
    assert here.recv()
    assert FileLocks(tmp_path).try_take("w1") is None, "it lives"

    process.kill()
    process.join()

    hold = FileLocks(tmp_path).try_take("w1")
    assert hold is not None
    hold.close()


def test_a_name_that_is_taken_is_said_with_the_way_out(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)

    with closing(claim_worker(locks, wanted="w1")), pytest.raises(NeedsReview) as caught:
        claim_worker(locks, wanted="w1")

    assert caught.value.code == "worker_id_taken"
    assert "service.worker_id" in caught.value.message


def test_without_a_name_each_process_of_a_host_takes_the_first_free_one(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    first, second = (claim_worker(locks, wanted="", host="lab pc/1") for _ in range(2))
    first.close()

    third = claim_worker(locks, wanted="", host="lab pc/1")

    assert (first.worker_id, second.worker_id) == ("lab-pc-1-1", "lab-pc-1-2")
    assert third.worker_id == first.worker_id
    assert not first.is_held()
    assert third.is_held()
    for hold in (second, third):
        hold.close()


def test_a_folder_that_cannot_be_used_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("in the way")

    with pytest.raises(RetryLater) as caught:
        FileLocks(tmp_path / "workers").try_take("w1")

    assert caught.value.code == "storage_unavailable"


def test_the_locks_fit_the_database(tmp_path: Path) -> None:
    assert isinstance(worker_locks("sqlite:///x", folder=tmp_path), FileLocks)
    assert not isinstance(worker_locks("postgresql://h/x", folder=tmp_path), FileLocks)
