"""Monitor of the library: changes are shown, indexed when they have come to rest, and no disk is lost."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx2 as httpx
import pytest
from support import quick_engines as quick
from support.library_place import library_place
from support.servers import serving

from pleinair.app.api import home
from pleinair.app.doctor.doctor import _library
from pleinair.app.index import bring_up_to_date
from pleinair.app.library import job as jobs
from pleinair.app.library import monitor as monitors
from pleinair.app.library.monitor import Monitor
from pleinair.app.library.opened import OpenLibrary
from pleinair.app.paths import Paths
from pleinair.app.settings import load


class Jobs:
    """Jobs that index in this process, and a clock."""

    def __init__(self) -> None:
        self.started_at = list[float]()
        self.now, self.failure = 0.0, ""
        self.started = threading.Event()

    def start(self, places: Paths) -> Popen[bytes]:
        self.started_at.append(self.now)
        self.started.set()
        place = places.home / jobs.FOLDER
        place.mkdir(parents=True, exist_ok=True)
        (place / jobs.REQUEST).write_text(
            jobs.JobRequest(kind="index", started=0.0).model_dump_json(), "utf-8"
        )
        result = jobs.JobResult(ending="done")
        if self.failure:
            result = jobs.JobResult(ending="failed", message=self.failure, remedy="Free some space.")
        else:
            list(bring_up_to_date(load()))
        (place / jobs.RESULT).write_text(result.model_dump_json(), "utf-8")
        process = Popen(["true"])
        process.wait()
        return process


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with library_place(tmp_path) as folder:
        list(bring_up_to_date(load()))
        yield folder


@pytest.fixture
def started() -> Jobs:
    return Jobs()


def monitor_of(started: Jobs) -> Monitor:
    return Monitor(home(), start=started.start, clock=lambda: started.now)


def add(place: Path, name: str, colour: tuple[int, int, int] = (1, 2, 3)) -> Path:
    quick.speckled(16, colour).save(place / "library" / name)
    return place / "library" / name


def test_changes_are_indexed_once_when_they_have_come_to_rest(place: Path, started: Jobs) -> None:
    monitor = monitor_of(started)
    monitor.look()
    assert monitor.state.looked and not monitor.state.changes and monitor.note == ""
    for number in range(3):  # a folder is copied while the monitor looks
        add(place, f"new {number}.png", (number, 2, 3))
        (place / "library" / "0.png").unlink(missing_ok=True)
        monitor.look()
        assert monitor.state.changes.summary == f"{number + 1} new, 1 removed" and not started.started_at
    path = add(place, "new 2.png", (99, 98, 97))  # the last one has grown
    os.utime(path, ns=(1, 1))
    monitor.look()
    assert not started.started_at and "not indexed yet" in monitor.note
    monitor.look()
    assert len(started.started_at) == 1
    monitor.look()
    assert not monitor.state.changes and len(started.started_at) == 1
    library = OpenLibrary(load(), home(), builds_index=False).library
    assert "new 2.png" in library.items and "0.png" not in library.items


def test_a_library_that_does_not_come_to_rest_is_indexed_after_a_while(place: Path, started: Jobs) -> None:
    monitor = monitor_of(started)
    monitor.look()
    for number in range(3):
        add(place, f"{number} new.png", (number, 2, 3))
        started.now += 0.6 * monitors._PATIENCE
        monitor.look()
    assert len(started.started_at) == 1


def test_without_indexing_changes_are_only_shown(place: Path, started: Jobs) -> None:
    monitor = monitor_of(started)
    add(place, "new.png")
    for _ in range(3):
        monitor.look(indexes=False)
    assert monitor.state.changes.summary == "1 new" and not started.started_at


def test_a_failed_job_is_shown_and_tried_again_later_or_after_another_change(
    place: Path, started: Jobs
) -> None:
    monitor, started.failure = monitor_of(started), "No room left"
    add(place, "new.png")
    for _ in range(4):
        monitor.look()
    assert len(started.started_at) == 1 and monitor.state.message == "No room left" and monitor.state.remedy
    started.now += monitors._RETRY
    monitor.look()
    assert len(started.started_at) == 2
    started.failure = ""
    add(place, "newer.png", (5, 2, 3))
    for _ in range(3):
        monitor.look()
    assert len(started.started_at) == 3 and not monitor.state.message and not monitor.state.changes


def test_a_stopped_job_is_not_started_again_for_the_same_changes(
    place: Path, started: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.bring_up_to_date", list_nothing)
    monitor = monitor_of(started)
    add(place, "new.png")
    for _ in range(4):
        started.now += monitors._RETRY
        monitor.look()
    assert (
        len(started.started_at) == 1
        and monitor.state.changes.summary == "1 new"
        and not monitor.state.message
    )


def list_nothing(*_: Any) -> list[str]:
    return []


@pytest.mark.parametrize("loss", ["folder", "all files", "most files"])
def test_a_missing_disk_is_shown_and_the_index_stays(place: Path, started: Jobs, loss: str) -> None:
    for number in range(20):
        add(place, f"more {number}.png", (number, 90, 3))
    list(bring_up_to_date(load()))
    monitor, library = monitor_of(started), place / "library"
    monitor.look()
    shutil.copytree(library, place / "disk")
    if loss == "folder":
        shutil.rmtree(library)
    else:
        for path in library.iterdir() if loss == "all files" else library.glob("more *.png"):
            path.unlink()
    for _ in range(4):
        monitor.look()
    assert str(library) in monitor.state.message or "20 of 29 images are no longer" in monitor.state.message
    assert "mount it" in monitor.state.remedy and monitor.note and not started.started_at
    assert len(OpenLibrary(load(), home(), builds_index=False).library.items) == 29
    shutil.copytree(place / "disk", library, dirs_exist_ok=True)
    monitor.look()
    assert not monitor.state.message and not monitor.state.changes.removed


def test_nothing_is_watched_where_there_is_no_index_or_it_is_turned_off(
    place: Path, started: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = monitor_of(started)
    add(place, "new.png")
    monitor.look()
    assert monitor.state.changes.new == 1
    monkeypatch.setenv("PLEINAIR_LIBRARY__WATCH", "0")
    monitor.look()
    assert not monitor.state.looked
    monitor.look(indexes=False)  # on request
    assert monitor.state.changes.new == 1
    monkeypatch.delenv("PLEINAIR_LIBRARY__WATCH")
    for folder in (str(place), "memory://images"):
        monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", folder)
        monitor.look()
        assert not monitor.state.looked and not started.started_at


def test_doctor_counts_what_has_changed(place: Path) -> None:
    assert _library(load(), home()).endswith("have their checksums")
    add(place, "new.png")
    assert _library(load(), home()).endswith("have their checksums; since then 1 new")


def test_settings_that_cannot_be_read_are_shown(
    place: Path, started: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = monitor_of(started)
    monkeypatch.setenv("PLEINAIR_LIBRARY__WATCH", "often")
    assert monitor.look() == monitors._OFF
    assert "library.watch" in monitor.state.message


def test_the_thread_indexes_and_ends(place: Path, started: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_LIBRARY__WATCH", "0.01")
    add(place, "new.png")
    monitor = monitor_of(started)
    monitor.start()
    try:
        assert monitor.is_running and started.started.wait(300)
    finally:
        monitor.close()
    assert not monitor.is_running
    assert not [thread for thread in threading.enumerate() if thread.name == "library monitor"]


def test_a_job_of_the_monitor_ends_with_it(place: Path, started: Jobs) -> None:
    processes: list[Popen[bytes]] = []

    def start(places: Paths) -> Popen[bytes]:
        processes.append(jobs.start(places, "index", is_automatic=True))
        return processes[0]

    monitor = Monitor(home(), start=start)
    for number in range(3):
        add(place, f"new {number}.png", (number, 2, 3))
    monitor.look()
    monitor.look()
    job = jobs.current(home())
    assert job and job.is_running and job.request.is_automatic and "indexing" in monitor.note
    monitor.close()
    assert processes[0].wait(300) is not None
    job = jobs.current(home())
    assert job and not job.is_running
    monitor = monitor_of(started)
    monitor.look()
    monitor.look()
    assert len(started.started_at) == 1 and not jobs.current(home()).is_running  # type: ignore[union-attr]


def test_a_server_shows_and_indexes_changes_as_they_come(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_LIBRARY__WATCH", "0.2")
    os.utime(place / "library", ns=(1, 1))
    feed = "/library/changes/feed?list="
    with serving(workers=0) as server, httpx.stream("GET", f"{server.address}{feed}", timeout=300) as stream:
        texts = stream.iter_lines()
        assert any("No changes since" in text for text in texts)
        add(place, "new.png")
        assert any("1 new</b> since" in text for text in texts)
        assert any("No changes since" in text for text in texts)
        url, headers = f"{server.address}/library?words=new", {"accept": "text/html"}
        assert "1 of 10 images" in httpx.get(url, headers=headers, timeout=300).text
        server.process.terminate()
        assert server.process.wait(300) == 0
