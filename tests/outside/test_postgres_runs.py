"""Runs in a real Postgres database: whole runs, fences, outages, first starts, deletion."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from support import quick_engines as quick
from support.lease_contention import commits_of
from support.postgres import PostgresServer

from pleinair.app import api
from pleinair.app.api import draw, finish, home, run_table, submit
from pleinair.app.chat.threads import Threads
from pleinair.app.doctor.doctor import examine
from pleinair.app.runs import postgres
from pleinair.app.runs.checkpoints import has_begun, open_saver
from pleinair.app.runs.events import Ended, EventLog, Progress, payloads, read
from pleinair.app.runs.history import config_of
from pleinair.app.runs.listing import RunFilter, choices_of, page_of
from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.presence import workers_of
from pleinair.app.runs.retention import delete, planned
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Busy, LeaseLost, Runs
from pleinair.app.runs.tables import SCHEMA
from pleinair.app.runs.worker import work
from pleinair.app.streams import follow
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import replay
from pleinair.app.trace.steps import steps_of
from pleinair.tools.storage.postgres import DatabaseAway, close_connections
from pleinair.tools.types import BadInput

PROMPT = "two things"
DATABASE = "PLEINAIR_CLUSTER__DATABASE"
SLOW = {"generator.pause": 0.4}  # seconds of each of three diffusion steps
COMMAND = [sys.executable, "-c", "from pleinair.app.cli.main import console; console()"]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def place(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set an empty database, a home, a library and the quick backends."""
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    monkeypatch.setenv(DATABASE, server.fresh_database())
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_connections()


def counts(run_id: str) -> dict[str, int]:
    """Return how many rows of each table belong to a run."""
    columns = {"runs": "id", "events": "run"} | dict.fromkeys(postgres.CHECKPOINTS, "thread_id")
    with psycopg.connect(os.environ[DATABASE]) as session:
        return {
            table: len(session.execute(f"SELECT 1 FROM {table} WHERE {column} = %s", (run_id,)).fetchall())
            for table, column in columns.items()
        }


def in_thread(run: Run) -> threading.Thread:
    thread = threading.Thread(target=finish, args=(run,))
    thread.start()
    return thread


def await_begin(run: Run) -> None:
    end = time.monotonic() + 60
    while not has_begun(home(), run.id) and time.monotonic() < end:
        time.sleep(0.01)


def test_a_run_is_the_same_in_a_file_and_in_a_database(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(PROMPT, seed=2)  # builds the index
    with monkeypatch.context() as patch:
        patch.delenv(DATABASE)
        in_file = draw(PROMPT, seed=1)
        kinds = [event.kind for event in read(home().events(in_file.run_id))]
        names = [step.names for step in steps_of(run_table().get(in_file.run_id), home())]
    result = draw(PROMPT, seed=1)
    events = read(home().events(result.run_id))
    assert list(follow(result.run_id)) == events
    assert [event.seq for event in events] == list(range(len(events)))
    assert sorted(event.kind for event in events) == sorted(kinds)
    assert [step.names for step in steps_of(run_table().get(result.run_id), home())] == names
    assert result.outcome.best and in_file.outcome.best
    assert result.outcome.best.picture == in_file.outcome.best.picture
    assert not home().events_file(result.run_id).exists()
    assert not (home().run(result.run_id) / "checkpoints.sqlite").exists()


def test_runs_are_listed_forked_replayed_and_deleted(place: Path) -> None:
    parent = draw(PROMPT, seed=1)
    branch = fork(parent.run_id, "critique:1")
    assert branch.outcome.best and replay(parent.run_id).outcome == parent.outcome
    table = run_table()
    assert page_of(table, RunFilter(search="TWO things"), 10).total == len(table.newest(99)) == 2
    assert choices_of(table, "graph") == ["pleinair"]
    assert planned(table, home(), [parent.run_id]).kept == {parent.run_id: "parent"}
    delete(table, home(), [branch.run_id])
    assert set(counts(branch.run_id).values()) == {0}
    assert min(counts(parent.run_id).values()) > 0
    assert not list(place.glob(f"home/runs/{branch.run_id}"))


def test_a_program_draws_and_goes_on(place: Path) -> None:
    """LangGraph is stricter in a program than here, where it was imported before."""
    code = "from pleinair.app.api import draw; print(draw('two things', seed=1).outcome.ending)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "accepted"


def test_a_question_is_answered_by_another_process(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides={"approve": "references"})
    assert waiting.outcome.ending == "waiting"
    code = f"from pleinair.app.api import answer; answer({waiting.run_id!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert finish(run_table().get(waiting.run_id)).outcome.ending == "accepted"


def test_an_outage_of_a_second_does_not_end_a_run(place: Path, server: PostgresServer) -> None:
    run = submit(PROMPT, seed=1, overrides=SLOW)
    thread = in_thread(run)
    await_begin(run)
    server.kill()
    time.sleep(1)
    server.start()
    thread.join()
    events = read(home().events(run.id))
    assert run_table().get(run.id).status == "accepted"
    assert [event.seq for event in events] == list(range(len(events)))
    assert len(payloads(events, Ended)) == 1


def test_a_run_goes_on_after_an_outage_that_its_holder_does_not_wait_for(
    place: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "OUTAGE", 0.2)
    for module in ("store", "lease"):
        monkeypatch.setattr(f"pleinair.app.runs.{module}.LEASE_SECONDS", 3.0)  # nobody can release it
    run, errors = submit(PROMPT, seed=1, overrides=SLOW), list[Exception]()

    def execute() -> None:
        try:
            finish(run)
        except DatabaseAway as error:
            errors.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    await_begin(run)
    server.kill()
    thread.join()
    server.start()
    assert len(errors) == 1 and "127.0.0.1" in str(errors[0])
    monkeypatch.setattr(postgres, "OUTAGE", 30.0)
    while run_table().get(run.id).owner:
        time.sleep(0.05)
    with monkeypatch.context() as patch:
        patch.setattr("pleinair.app.runs.store.LEASE_SECONDS", 60.0)
        assert api.resume(run.id).outcome.ending == "accepted"
    numbers = [event.seq for event in read(home().events(run.id))]
    assert numbers == list(range(len(numbers)))


def test_a_holder_without_its_lease_stores_nothing(place: Path) -> None:
    run, table = submit(PROMPT, seed=1), run_table()
    stale = table.claim(run.id, new_owner())
    with table.transaction() as db:
        db.execute("UPDATE runs SET fence = fence + 1 WHERE id = ?", (run.id,))
    with closing(EventLog(home().events(run.id), fence=stale)) as log, pytest.raises(LeaseLost):
        log.write(Progress(text="late"))
    with open_saver(home(), run.id, lambda: None, stale) as saver, pytest.raises(LeaseLost):
        saver.put_writes(
            config_of(run.id, "1ef4f797-8335-6428-8001-8a1503f9b875"), [("prompt", ["late"] * 50)], "task"
        )
    table.release(run.id, stale + 1)
    assert {name: count for name, count in counts(run.id).items() if count} == {"runs": 1}


def test_texts_that_postgres_refuses_are_stored_without_the_character(place: Path) -> None:
    table = run_table()
    (run,) = table.add_group([('{"prompt": "a\\u0000b \\ud800"}', 1)])
    assert page_of(table, RunFilter(search="\ufffd"), 10).total == 1
    table.claim(run.id, new_owner())
    with open_saver(home(), run.id, lambda: None, 1) as saver:
        checkpoint = {"v": 4, "id": "1ef4f797-8335-6428-8001-8a1503f9b875", "ts": "", "channel_versions": {}}
        values = {"channel_values": {"prompt": "a\0b"}, "versions_seen": {}}
        config = saver.put(config_of(run.id), checkpoint | values, {}, {"prompt": 1})  # type: ignore[arg-type]
        stored = saver.get_tuple(config)
    assert stored and stored.checkpoint["channel_values"]["prompt"] == "a\ufffdb"


def test_the_copy_of_a_saver_that_langgraph_makes_reads_items(place: Path) -> None:
    (run,) = run_table().add_group([("{}", 1)])
    run_table().claim(run.id, new_owner())
    attempts = [{"number": number, "why": "a long text " * 9} for number in range(3)]
    with open_saver(home(), run.id, lambda: None, 1) as opened:
        saver = opened.with_allowlist([("pathlib", "Path")])
        assert saver is not opened
        checkpoint = {"v": 4, "id": "1ef4f797-8335-6428-8001-8a1503f9b875", "ts": "", "versions_seen": {}}
        values = {"channel_values": {"attempts": attempts}, "channel_versions": {"attempts": "1"}}
        config = saver.put(config_of(run.id), checkpoint | values, {}, {"attempts": "1"})  # type: ignore[arg-type]
        stored = saver.get_tuple(config)
    assert stored and stored.checkpoint["channel_values"]["attempts"] == attempts
    assert counts(run.id)["items"] == 3


def test_processes_that_start_at_the_same_time_make_the_tables_once(place: Path) -> None:
    assert commits_of(os.environ[DATABASE], [], processes=4) == [0] * 4
    assert run_table().newest(9) == []


def test_several_processes_never_commit_one_run_twice(place: Path) -> None:
    table = run_table()
    ids = [table.add_group([("{}", seed)])[0].id for seed in range(20)]
    assert sum(commits_of(os.environ[DATABASE], ids)) == len(ids)
    assert {run.status for run in table.newest(99)} == {"accepted"}


@pytest.mark.parametrize("command", [["worker"], ["draw", PROMPT], ["runs", "list"]])
def test_nothing_starts_without_the_database(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv(DATABASE, "postgresql://postgres@127.0.0.1:1/runs")
    done = subprocess.run([*COMMAND, *command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 5 and "127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr
    assert not Path("out").exists() and not list(Path("home").glob("runs*"))


def test_a_newer_schema_and_another_clock_are_refused(
    place: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_table().newest(1)
    url = os.environ[DATABASE]
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("UPDATE pleinair_schema SET version = version + 1")
    with pytest.raises(BadInput, match=f"schema {SCHEMA + 1}"):
        postgres.PostgresDatabase(url).lent().__enter__()
    with monkeypatch.context() as patch:
        now = time.time
        patch.setattr("pleinair.app.runs.postgres.time.time", lambda: now() - 60)
        with pytest.raises(BadInput, match="differ by 60 s"):
            postgres.PostgresDatabase(url).lent().__enter__()


@pytest.mark.parametrize("step", ["_require_clock", "_lock_tables", "_migrate"])
def test_a_connection_lost_at_the_first_use_is_an_outage(
    step: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.fresh_database()
    with monkeypatch.context() as patch, pytest.raises(DatabaseAway):
        patch.setattr(
            postgres.PostgresDatabase,
            step,
            lambda _, session: session.execute("SELECT pg_terminate_backend(pg_backend_pid())"),
        )
        postgres.PostgresDatabase(url).lent().__enter__()
    with postgres.PostgresDatabase(url).readable() as db:
        assert db.execute("SELECT count(*) AS runs FROM runs").fetchone()["runs"] == 0


def test_tables_of_an_older_schema_are_migrated(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = draw(PROMPT, seed=1)
    changes = {SCHEMA: ("ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",)}
    monkeypatch.setattr(postgres, "MIGRATIONS", changes)
    monkeypatch.setattr(postgres, "SCHEMA", SCHEMA + 1)
    for _ in range(2):  # once, however often it is opened
        with postgres.PostgresDatabase(os.environ[DATABASE]).readable() as db:
            row = db.execute("SELECT colour FROM runs WHERE id = ?", (result.run_id,)).fetchone()
            (version,) = db.execute("SELECT version FROM pleinair_schema").fetchone()
    assert (row["colour"], version) == ("red", SCHEMA + 1)


def test_two_sessions_do_not_change_a_chat_thread_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pleinair.app.chat.threads.LOCK_SECONDS", 0.2)
    thread = Threads().create()
    with Threads().opened(thread.id), pytest.raises(Busy), Threads().opened(thread.id):
        pass
    with Threads().opened(thread.id) as session:
        assert session.thread.id == thread.id


def test_a_worker_is_in_the_database_while_it_works(place: Path) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(run_table(), home(), stop))
    thread.start()
    end = time.monotonic() + 60
    while not workers_of(home()) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(workers_of(home())) == 1
    stop.set()
    thread.join()
    assert workers_of(home()) == []


def test_a_worker_of_another_machine_leaves_the_results_to_the_program(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_CLUSTER__WORKERS", "true")
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(run_table(), home(), stop))
    run = submit(PROMPT, seed=1)
    assert Runs(home().table).get(run.id).client
    thread.start()
    try:
        result = finish(run)
    finally:
        stop.set()
        thread.join()
    assert result.picture and result.picture.exists() and result.sidecar.exists()


def test_doctor_counts_runs_and_workers_of_the_database(place: Path) -> None:
    run_table().add_group([("{}", 1)])
    findings = {finding.name: finding for finding in examine(None, {})}
    assert findings["run table"].ok and "1 runs in postgresql://" in findings["run table"].text
    assert findings["run table"].text.endswith("0 workers")
