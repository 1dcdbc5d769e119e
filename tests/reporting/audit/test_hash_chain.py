"""The chain holds, whatever is killed and whoever else writes; what is tampered with is found."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Defect, RetryLater
from reporting.audit.hash_chain import OTHERS_S
from reporting.audit.record_format import GENESIS, decode, encode
from reporting.audit.trail import Event, FindingKind, TrailPolicy, Verification, verify_trail
from tests.reporting.trails import KEY, Clock, open_trail, write_days

PATIENCE_S = 120.0
"""How long a test waits for what must come; only a failing test waits so long."""


def verify(folder: Path) -> Verification:
    return verify_trail(folder, KEY.public)


def kinds(folder: Path) -> list[FindingKind]:
    return [found.kind for found in verify(folder).findings]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    links = [
        decode(line)
        for path in sorted(folder.glob("audit-*"))
        for line in path.read_bytes().splitlines()
    ]
    return [dict(link.entry) for link in links if link is not None]


# What was written can be read and verified


def test_a_trail_of_several_days_is_whole_and_has_a_file_a_day(tmp_path: Path) -> None:
    write_days(tmp_path, days=3)

    result = verify(tmp_path)

    assert result.is_whole
    assert result.findings == ()
    assert result.unsigned_events == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "audit-20261122-ward7.jsonl",
        "audit-20261123-ward7.jsonl",
        "audit-20261124-ward7.jsonl",
        "checkpoints-ward7.jsonl",
    ]


def test_a_clock_that_jumps_back_over_midnight_keeps_the_chain(tmp_path: Path) -> None:
    clock = Clock()
    trail = open_trail(tmp_path, clock=clock)
    for jump in (12 * 3600, -3600, -3600, 4 * 3600):
        clock.move(jump)
        trail.record(Event.REQUEST_REFUSED)
    trail.close()

    assert verify(tmp_path).is_whole
    assert len(list(tmp_path.glob("audit-*"))) == 2


def test_a_checkpoint_comes_after_so_many_events_or_so_much_time(tmp_path: Path) -> None:
    clock = Clock()
    policy = TrailPolicy(fsync="interval", checkpoint_every_events=5, checkpoint_every_s=60)
    trail = open_trail(tmp_path, clock=clock, policy=policy)

    for _ in range(5):
        trail.record(Event.REQUEST_REFUSED)
    by_count = verify(tmp_path)
    trail.record(Event.REQUEST_REFUSED)
    clock.move(59)
    trail.tick()
    too_early = verify(tmp_path)
    clock.move(1)
    trail.tick()
    by_time = verify(tmp_path)
    trail.tick()
    nothing_new = verify(tmp_path)

    assert (by_count.checkpoints, by_count.unsigned_events) == (2, 0)
    assert (too_early.checkpoints, too_early.unsigned_events) == (2, 1)
    assert (by_time.checkpoints, by_time.unsigned_events) == (3, 0)
    assert nothing_new == by_time


@pytest.mark.parametrize(("policy", "least"), [("event", 10), ("interval", 1), ("never", 0)])
def test_the_fsync_policy_is_kept(
    tmp_path: Path, policy: Any, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = open_trail(tmp_path, policy=TrailPolicy(fsync=policy, checkpoint_every_events=1000))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)

    for _ in range(10):
        trail.record(Event.REQUEST_REFUSED)
    trail.tick()
    trail.tick()

    assert len(synced) == least


@pytest.mark.parametrize("policy", ["event", "interval", "never"])
def test_the_keeper_rests_while_nothing_is_due(tmp_path: Path, policy: Any) -> None:
    clock = Clock()
    trail = open_trail(
        tmp_path, clock=clock, policy=TrailPolicy(fsync=policy, checkpoint_every_s=OTHERS_S / 2)
    )
    trail.tick()
    at_rest = trail.is_due()
    trail.record(Event.REQUEST_REFUSED)
    is_written = trail.is_due()
    trail.tick()
    is_synced = trail.is_due()
    clock.move(OTHERS_S / 2)
    is_to_be_signed = trail.is_due()
    trail.tick()
    is_signed = trail.is_due()
    clock.move(OTHERS_S)
    others_may_have_died = trail.is_due()

    assert not at_rest
    assert is_written is (policy == "interval")
    assert not is_synced
    assert is_to_be_signed
    assert not is_signed
    assert others_may_have_died


def test_an_event_is_written_while_the_disk_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = open_trail(tmp_path, policy=TrailPolicy(fsync="interval"))
    trail.record(Event.REQUEST_REFUSED)
    met: list[bool] = []

    def slow_disk(_handle: int) -> None:
        another = threading.Thread(target=trail.record, args=(Event.REQUEST_REFUSED,), daemon=True)
        another.start()
        another.join(PATIENCE_S)
        met.append(not another.is_alive())

    monkeypatch.setattr(os, "fsync", slow_disk)
    trail.tick()
    monkeypatch.undo()
    trail.close()

    assert met == [True]
    assert verify(tmp_path).findings == ()


# Bad disks


def test_a_failed_fsync_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = open_trail(tmp_path, policy=TrailPolicy(fsync="interval"))
    trail.record(Event.REQUEST_REFUSED)
    synced: list[int] = []

    def broken(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(RetryLater) as caught:
        trail.tick()
    monkeypatch.setattr(os, "fsync", synced.append)
    trail.tick()
    trail.tick()

    assert caught.value.code == "audit_not_written"
    assert len(synced) == 1


def test_a_full_disk_is_told_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = open_trail(tmp_path)
    real_write = os.write

    def full(handle: int, content: bytes) -> int:
        real_write(handle, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RetryLater) as caught:
        trail.record(Event.REQUEST_REFUSED)
    monkeypatch.setattr(os, "write", real_write)
    trail.record(Event.REQUEST_REFUSED)
    trail.close()

    assert caught.value.code == "audit_not_written"
    assert verify(tmp_path).findings == ()


def test_a_disk_that_fills_while_a_checkpoint_is_copied_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = open_trail(tmp_path, policy=TrailPolicy(checkpoint_every_events=2))
    copies = trail._writer._copies
    real_write = os.write

    def full(handle: int, content: bytes) -> int:
        if handle == copies:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(handle, content)

    monkeypatch.setattr(os, "write", full)
    trail.record(Event.REQUEST_REFUSED)
    with pytest.raises(RetryLater):
        trail.record(Event.REQUEST_REFUSED)
    monkeypatch.setattr(os, "write", real_write)
    trail.close()

    assert verify(tmp_path).findings == ()


def test_an_event_that_is_too_long_is_a_defect(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)

    with pytest.raises(Defect):
        trail.record(Event.REPORT_DELIVERED, reasons=["a" * 60] * 2000)
    trail.close()

    assert verify(tmp_path).is_whole


# Killed in the middle


@pytest.mark.parametrize("cut", [2, 40, 150, 399])
def test_a_line_cut_by_a_kill_is_closed_and_told_apart_from_tampering(
    tmp_path: Path, cut: int
) -> None:
    trail = open_trail(tmp_path)
    trail.record(Event.IMAGE_RECEIVED, sop_instance_uid="1.2.3")
    path = next(tmp_path.glob("audit-*"))
    path.write_bytes(path.read_bytes()[:-cut])

    unfinished = kinds(tmp_path)
    again = open_trail(tmp_path)
    again.record(Event.IMAGE_RECEIVED, sop_instance_uid="1.2.4")
    again.close()

    assert unfinished == [FindingKind.UNFINISHED]
    assert verify(tmp_path).is_whole
    assert kinds(tmp_path) == [FindingKind.RECOVERED]
    assert "chain_recovered" in [entry["event"] for entry in lines_of(tmp_path)]


def test_a_line_that_lacks_only_its_newline_is_kept(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)
    trail.record(Event.IMAGE_RECEIVED, sop_instance_uid="1.2.3")
    path = next(tmp_path.glob("audit-*"))
    path.write_bytes(path.read_bytes()[:-1])

    open_trail(tmp_path).close()

    assert verify(tmp_path).findings == ()
    assert "image_received" in [entry["event"] for entry in lines_of(tmp_path)]


def test_a_torn_line_that_is_changed_later_is_found(tmp_path: Path) -> None:
    test_a_line_cut_by_a_kill_is_closed_and_told_apart_from_tampering(tmp_path, 40)
    path = next(tmp_path.glob("audit-*"))
    lines = path.read_bytes().split(b"\n")
    torn = next(i for i, line in enumerate(lines) if decode(line) is None)
    lines[torn] = lines[torn].replace(b"1.2.3", b"1.2.9")
    path.write_bytes(b"\n".join(lines))

    assert FindingKind.CHANGED in kinds(tmp_path)


def test_another_process_closes_a_torn_line_of_the_day_before(tmp_path: Path) -> None:
    clock = Clock()
    open_trail(tmp_path, clock=clock).record(Event.REQUEST_REFUSED)
    with next(tmp_path.glob("audit-*")).open("ab") as file:
        file.write(b'{"time":"2026')
    clock.move(86400)

    open_trail(tmp_path, clock=clock).close()

    assert verify(tmp_path).is_whole
    assert kinds(tmp_path) == [FindingKind.RECOVERED]


@pytest.mark.parametrize("lines_left", [0, 1])
def test_a_kill_during_the_daily_roll_heals(tmp_path: Path, lines_left: int) -> None:
    write_days(tmp_path, days=2)
    last = sorted(tmp_path.glob("audit-*"))[-1]
    first_lines = last.read_bytes().splitlines(keepends=True)[:lines_left]
    copies = tmp_path / "checkpoints-ward7.jsonl"
    kept = [line for line in copies.read_bytes().splitlines(keepends=True) if b"1123-" not in line]
    rolled = [line for line in copies.read_bytes().splitlines(True) if b"next_file" in line]
    copies.write_bytes(b"".join(kept + [line for line in rolled if line not in kept]))
    last.unlink() if lines_left == 0 else last.write_bytes(b"".join(first_lines))
    clock = Clock()
    clock.move(86400 + 60)

    open_trail(tmp_path, clock=clock).close()

    assert verify(tmp_path).findings == ()


def test_a_kill_between_a_checkpoint_and_its_copy_heals(tmp_path: Path) -> None:
    write_days(tmp_path, days=1)
    copies = tmp_path / "checkpoints-ward7.jsonl"
    text = copies.read_bytes()
    last = text.splitlines(keepends=True)[-1]
    copies.write_bytes(text[: -len(last) + 30])

    broken = verify(tmp_path).is_whole
    open_trail(tmp_path).close()

    assert not broken
    assert verify(tmp_path).findings == ()


WRITE_FOREVER = """
import sys
from pathlib import Path
from tests.reporting.trails import open_trail
from reporting.audit.trail import Event, TrailPolicy
policy = TrailPolicy(fsync="never", checkpoint_every_events=7)
trail = open_trail(Path(sys.argv[1]), policy=policy)
for number in range(int(sys.argv[3])):
    trail.record(Event.REQUEST_REFUSED, destination=sys.argv[2], count=number)
    print(number, flush=True)
trail.close()
"""


def writer(folder: Path, name: str, events: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(folder), name, str(events)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def test_two_processes_keep_one_chain_and_a_kill_loses_nothing_recorded(tmp_path: Path) -> None:
    living, dying = writer(tmp_path, "living", 300), writer(tmp_path, "dying", 1_000_000)
    assert dying.stdout is not None
    told = [dying.stdout.readline() for _ in range(200)]
    dying.send_signal(signal.SIGKILL)
    told += dying.stdout.read().splitlines(keepends=True)
    dying.wait()
    living.communicate()
    open_trail(tmp_path).close()

    result = verify(tmp_path)
    entries = lines_of(tmp_path)
    written = {entry["count"] for entry in entries if entry.get("destination") == "dying"}
    survived = {entry["count"] for entry in entries if entry.get("destination") == "living"}
    acknowledged = {int(line) for line in told if line.endswith("\n")}

    assert result.is_whole
    assert acknowledged <= written
    assert survived == set(range(300))


# Tampering


@pytest.fixture(scope="module")
def closed_trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trail")
    write_days(folder, days=3)
    write_days(folder, days=1, chain="other")
    open_trail(folder).close()  # a checkpoint that has seen the other chain
    assert verify(folder).is_whole
    return folder


@pytest.fixture(scope="module")
def copy_of(closed_trail: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("copies") / "copy"

    def make() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(closed_trail, folder)
        return folder

    return make


def some_file(data: st.DataObject, folder: Path) -> Path:
    return data.draw(st.sampled_from(sorted(folder.iterdir())))


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_byte_changed_is_found(copy_of: Any, data: st.DataObject) -> None:
    folder = copy_of()
    path = some_file(data, folder)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    assert not verify(folder).is_whole


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_line_removed_repeated_or_moved_is_found(copy_of: Any, data: st.DataObject) -> None:
    folder = copy_of()
    path = some_file(data, folder)
    lines = path.read_bytes().splitlines(keepends=True)
    place = data.draw(st.integers(0, len(lines) - 1))
    other = data.draw(st.integers(0, len(lines) - 1))
    match data.draw(st.sampled_from(["remove", "repeat", "move", "swap"])):
        case "remove":
            del lines[place]
        case "repeat":
            lines.insert(other, lines[place])
        case "swap":
            lines[place], lines[other] = lines[other], lines[place]
        case "move":
            lines.insert(other, lines.pop(place))
    if b"".join(lines) == path.read_bytes():
        return
    path.write_bytes(b"".join(lines))

    assert not verify(folder).is_whole


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_cut_of_a_closed_trail_is_found(copy_of: Any, data: st.DataObject) -> None:
    folder = copy_of()
    path = some_file(data, folder)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])

    assert not verify(folder).is_whole


def test_any_file_missing_is_found_and_named(copy_of: Any, closed_trail: Path) -> None:
    for name in [path.name for path in closed_trail.iterdir()]:
        folder = copy_of()
        (folder / name).unlink()

        assert not verify(folder).is_whole


def test_a_whole_chain_missing_is_found(copy_of: Any) -> None:
    folder = copy_of()
    for path in folder.glob("*-other.jsonl"):
        path.unlink()

    findings = verify(folder).findings

    assert [found.kind for found in findings] == [FindingKind.MISSING_FILE]
    assert "other" in findings[0].message


def test_a_forged_chain_is_not_signed_by_the_site(copy_of: Any, closed_trail: Path) -> None:
    """All hashes made anew after a change: only the signature is left to tell."""
    folder = copy_of()
    path = sorted(folder.glob("audit-*ward7*"))[0]
    prev, forged = GENESIS, []
    for seq, line in enumerate(path.read_bytes().splitlines(), start=1):
        link = decode(line)
        assert link is not None
        entry = {k: v for k, v in link.entry.items() if k not in ("seq", "prev")}
        if entry.get("sop_instance_uid") == "1.2.0.3":
            entry["sop_instance_uid"] = "9.9.9"
        text, prev = encode(entry, seq=seq, prev=prev)
        forged.append(text)
    path.write_bytes(b"".join(forged))

    assert FindingKind.UNSIGNED in kinds(folder)


def test_the_place_of_a_change_is_told(copy_of: Any) -> None:
    folder = copy_of()
    path = sorted(folder.glob("audit-*ward7*"))[1]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"success", b"failure")
    path.write_bytes(b"".join(lines))

    found = verify(folder).problems[0]

    assert (found.file, found.line, found.kind) == (path.name, 4, FindingKind.CHANGED)


def test_lines_put_in_after_the_end_are_not_signed_over_in_silence(tmp_path: Path) -> None:
    write_days(tmp_path, days=1)
    path = next(tmp_path.glob("audit-*"))
    last = decode(path.read_bytes().splitlines()[-1])
    assert last is not None
    fake = {**last.entry, "event": "image_received"}
    for name in ("signature", "seq", "prev"):
        del fake[name]
    line, _ = encode(fake, seq=last.seq + 1, prev=last.hash)
    with path.open("ab") as file:
        file.write(line)

    open_trail(tmp_path).close()

    resumed = [entry for entry in lines_of(tmp_path) if entry["event"] == "chain_resumed"]
    assert resumed[-1]["unsigned_events"] == 1


def test_cutting_the_file_under_a_running_service_is_found(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)
    for number in range(10):
        trail.record(Event.REQUEST_REFUSED, count=number)
    path = next(tmp_path.glob("audit-*"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    trail.record(Event.REQUEST_REFUSED, count=10)
    trail.close()

    assert not verify(tmp_path).is_whole


def test_removing_the_file_under_a_running_service_is_found(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)
    trail.record(Event.REQUEST_REFUSED)
    next(tmp_path.glob("audit-*")).unlink()
    trail.record(Event.REQUEST_REFUSED, count=1)
    trail.close()

    assert not verify(tmp_path).is_whole
    assert lines_of(tmp_path)[-2]["count"] == 1


def test_an_empty_folder_is_no_trail(tmp_path: Path) -> None:
    assert kinds(tmp_path) == [FindingKind.NO_TRAIL]


def test_a_trail_can_be_verified_while_it_is_written(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)

    for number in range(20):
        trail.record(Event.REQUEST_REFUSED, count=number)
        assert verify(tmp_path).is_whole
