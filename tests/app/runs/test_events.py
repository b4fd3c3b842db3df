"""The event log: appended only, readable after any crash."""

import os
import resource
import threading
from pathlib import Path

import pytest

from pleinair.app.runs.events import Event, EventLog, Progress, read
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import BadInput


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "events.jsonl"


def write(path: Path, count: int) -> None:
    record = EventLog(path)
    for number in range(count):
        record.write(Progress(done=number), "generate", number)
    record.close()


def test_what_is_written_is_read(path: Path) -> None:
    write(path, 3)
    assert [(event.seq, event.data, event.attempt) for event in read(path)] == [
        (number, Progress(done=number), number) for number in range(3)
    ]


def test_a_log_that_is_not_there_is_empty(path: Path) -> None:
    assert read(path) == []


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    write(path, 2)
    write(path, 2)
    assert [event.seq for event in read(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_left_out_and_then_mended(path: Path, cut: int) -> None:
    write(path, 3)
    os.truncate(path, path.stat().st_size - cut)
    assert [event.seq for event in read(path)] == [0, 1]
    write(path, 1)
    assert [event.seq for event in read(path)] == [0, 1, 2]
    assert path.read_bytes().count(b"\n") == 3


def test_every_possible_tear_is_readable(path: Path) -> None:
    write(path, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert len(read(path)) == (length >= first) + (length == len(whole))


def test_damage_within_is_named_by_line(path: Path) -> None:
    write(path, 3)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1][:-4]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 2"):
        read(path)


def test_a_newer_log_is_refused(path: Path) -> None:
    write(path, 1)
    path.write_text(path.read_text(encoding="utf-8").replace('"v":1', '"v":2'), encoding="utf-8")
    with pytest.raises(BadInput, match="version 1"):
        read(path)


def test_every_event_is_told_once_from_any_thread(path: Path) -> None:
    told: list[Event] = []
    record = EventLog(path, told.append)
    threads = [threading.Thread(target=record.write, args=(Progress(done=n),)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record.close()
    assert [event.seq for event in read(path)] == list(range(20))
    assert sorted(event.seq for event in told) == list(range(20))


def test_a_full_disk_leaves_a_readable_log(path: Path) -> None:
    write(path, 2)
    size = path.stat().st_size
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        try:
            write(path, 1)
        except DiskFull:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert path.stat().st_size == size
    assert len(read(path)) == 2
