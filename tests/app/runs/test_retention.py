"""Deletion of runs: what goes, what stays and why, and what a killed deletion leaves."""

import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from PIL import Image

from pleinair.app.api import draw, home, run_table, submit
from pleinair.app.chat.thread import Message, Thread
from pleinair.app.chat.threads import Threads
from pleinair.app.runs.retention import (
    bytes_of,
    delete,
    planned,
    prunable,
    seconds_of,
    sizes_of,
    sweep,
)
from pleinair.app.trace.fork import fork
from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import BadInput

PROMPT = "first thing and second thing"


def ended(seed: int = 1, **options: object) -> str:
    return draw(PROMPT, seed=seed, **({"graph": "direct"} | options)).run_id  # type: ignore[call-overload, no-any-return]


def ids() -> set[str]:
    return {run.id for run in run_table().newest(99)}


def set_age(run_id: str, seconds: float) -> None:
    db = sqlite3.connect(home().table_file)
    db.execute("UPDATE runs SET updated = ? WHERE id = ?", (time.time() - seconds, run_id))
    db.commit()
    db.close()


def test_a_run_goes_with_its_folder_and_its_results_stay(place: Path) -> None:
    one, other = ended(1), ended(2)
    results = sorted((place / "out").iterdir())
    size = sizes_of([one], home())[one]
    plan = planned(run_table(), home(), [one])
    assert ids() == {one, other}
    result = delete(run_table(), home(), [one])
    assert plan == result and result.sizes == {one: size} and size > 0
    assert ids() == {other}
    assert not home().run(one).exists() and home().run(other).exists()
    assert sorted((place / "out").iterdir()) == results


def test_what_is_open_unknown_or_in_a_thread_stays(place: Path) -> None:
    done, waiting = ended(), submit(PROMPT).id
    threads = Threads()
    with threads.opened(Thread.begin()) as session:
        session.thread = session.thread.model_copy(update={"turns": (Message(prompt="x", runs=(done,)),)})
    unknown = "20260101-000000-00000000"
    result = delete(run_table(), home(), [done, waiting, unknown])
    assert result.kept == {done: "thread", waiting: "open", unknown: "unknown"}
    assert ids() == {done, waiting}
    assert delete(run_table(), home(), [done, waiting], threads=True).kept == {waiting: "open"}
    assert threads.viewed(session.thread).messages()


def test_a_parent_stays_unless_its_forks_go_too(place: Path) -> None:
    parent = ended(graph="pleinair")
    child = fork(parent, "finish:1").run_id
    assert delete(run_table(), home(), [parent]).kept == {parent: "parent"}
    assert set(delete(run_table(), home(), [parent, child]).sizes) == {parent, child}
    assert ids() == set()


def test_an_input_image_goes_with_its_last_run(place: Path) -> None:
    file = place / "input.png"
    Image.new("RGB", (8, 8), "red").save(file)
    first, second = (
        ended(seed, graph="pleinair", input_images=[file], overrides={"budget.attempts": 1})
        for seed in (1, 2)
    )
    stored = Folder(home().input_images)
    assert len(stored.sizes()) == 1
    delete(run_table(), home(), [first])
    assert len(stored.sizes()) == 1
    delete(run_table(), home(), [second])
    assert stored.sizes() == {}
    assert file.exists()


def test_a_killed_deletion_leaves_nothing_that_shows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = ended(1), ended(2)

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            delete(run_table(), home(), [run])
    assert ids() == {other} and home().run(run).exists()
    foreign = home().run("20250101-000000-00000000")  # whose row was lost otherwise
    foreign.mkdir()
    sweep(run_table(), home())
    assert not home().run(run).exists() and foreign.exists() and home().run(other).exists()


def test_old_runs_are_pruned(place: Path) -> None:
    old, new, opened = ended(1), ended(2), submit(PROMPT).id
    for run in (old, opened):
        set_age(run, seconds_of("31d"))
    assert prunable(run_table(), home(), older_than=seconds_of("30d")) == [old]
    assert prunable(run_table(), home(), older_than=seconds_of("30d"), status="failed") == []
    assert prunable(run_table(), home(), status="unchecked") == [old, new]


def test_the_oldest_are_pruned_until_the_rest_is_under_a_size(place: Path) -> None:
    runs = [ended(seed) for seed in range(4)]
    sizes = [*sizes_of(runs, home()).values()]
    assert prunable(run_table(), home(), larger_than=sum(sizes)) == []
    assert prunable(run_table(), home(), larger_than=sum(sizes) - 1) == runs[:1]
    assert prunable(run_table(), home(), larger_than=sizes[3]) == runs[:3]
    set_age(runs[3], seconds_of("1w"))
    assert prunable(run_table(), home(), larger_than=sum(sizes) - 1) == [runs[3]]


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43200.0), ("30d", 2592000.0), ("1.5 w", 907200.0)])
def test_ages(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2gb", 2_000_000_000), ("0.5 TB", 5 * 10**11)]
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "3 months", "1e9d", "infGB"])
def test_other_measures_are_refused(text: str) -> None:
    for read in (seconds_of, bytes_of):
        with pytest.raises(BadInput):
            read(text)


def test_rows_of_schema_2_are_searched(place: Path) -> None:
    from pleinair.app.runs.listing import RunFilter, choices_of, page_of

    run = submit("A Wren in the SNOW")
    db = sqlite3.connect(home().table_file)
    db.execute("DROP INDEX listing")
    db.execute("DROP TABLE deleted")
    for name in ("words", "graph", "profile"):
        db.execute(f"ALTER TABLE runs DROP COLUMN {name}")
    row = ("x", "{", 1, "failed", 1.0, 1.0)  # damaged
    columns = "id, order_json, seed, status, created, updated"
    db.execute(f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()
    found = page_of(run_table(), RunFilter(search="SNOW wren", graph="pleinair"), 10)
    assert ([row.id for row in found.runs], found.total) == ([run.id], 1)
    assert page_of(run_table(), RunFilter(), 10).total == 2
    assert choices_of(run_table(), "profile") == [json.loads(run.request_json)["settings"]["profile"]]
