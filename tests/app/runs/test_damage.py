"""Damaged rows, logs and checkpoints, and disks without room: what is damaged is named, all else works."""

import json
import os
import re
import resource
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from support import quick_engines
from typer.testing import CliRunner, Result

from pleinair.app.api import draw, finish, home, resume, run_table, submit
from pleinair.app.chat.threads import Threads
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Event
from pleinair.app.runs.row import Run
from pleinair.app.runs.sqlite_file import unusable
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import BadInput, PleinairError

COLUMNS: dict[str, object] = {
    "outcome_json": "{",
    "order_json": "no JSON",
    "status": "whatever",
    "seed": "x",
    "created": "yesterday",
    "fence": b"\x00",
}


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def change(run_id: str, column: str, value: object) -> None:
    with closing(sqlite3.connect(home().table_file)) as db, db:
        db.execute(f"UPDATE runs SET {column} = ? WHERE id = ?", (value, run_id))


def interrupted() -> Run:
    """Return a run that was stopped at once after its draft."""

    def stop(event: Event) -> None:
        if (event.step, event.kind) == ("draft", "step_finished"):
            raise KeyboardInterrupt

    run = submit("two things", seed=7)
    with pytest.raises(KeyboardInterrupt):
        finish(run, stop)
    return run


@pytest.mark.parametrize(("column", "value"), COLUMNS.items(), ids=list(COLUMNS))
def test_a_damaged_row_is_named_and_the_others_work(place: Path, column: str, value: object) -> None:
    whole, damaged = draw("two things", seed=7), draw("two things", seed=8)
    change(damaged.run_id, column, value)
    listed = call("runs", "list")
    assert listed.exit_code == 0
    assert sorted(line.split()[1] for line in listed.stdout.splitlines()) == ["accepted", "damaged"]
    assert f"column {column}" in listed.stdout
    shown = call("runs", "show", damaged.run_id)
    assert (shown.exit_code, column in shown.stdout) == (0, True)
    for words in (("runs", "resume"), ("trace", "replay")):
        result = call(*words, damaged.run_id)
        assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    assert call("runs", "show", whole.run_id).exit_code == 0
    assert call("draw", "two things", "--dry-run").exit_code == 0
    assert draw("two things", seed=9).outcome.ending == "accepted"


def test_an_owner_that_cannot_be_read_holds_nothing(place: Path) -> None:
    run = interrupted()
    change(run.id, "lease_owner", "somebody")
    change(run.id, "lease_until", 9e12)
    assert resume(run.id).outcome.ending == "accepted"


def test_a_run_with_a_damaged_event_can_be_resumed(place: Path) -> None:
    whole, run = draw("two things", seed=7), interrupted()
    log = home().events_file(run.id)
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = b"\0" * 20 + b"\n"
    log.write_bytes(b"".join(lines))
    assert resume(run.id).outcome.ending == "accepted"
    numbers = [json.loads(line)["seq"] for line in log.read_bytes().splitlines()[2:]]
    assert numbers == list(range(2, 2 + len(numbers)))
    for words in (("trace", "diff", run.id, whole.run_id), ("trace", "replay", run.id)):
        result = call(*words)
        assert (result.exit_code, f"{log.name}: line 2" in result.stderr) == (2, True)
    assert call("trace", "show", whole.run_id).exit_code == 0
    assert call("draw", "two things", "--dry-run").exit_code == 0


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_trace_has_the_events_around_a_damaged_line_and_names_it(place: Path, number: int) -> None:
    run = draw("two things", seed=7).run_id
    log = home().events_file(run)
    lines = log.read_bytes().splitlines()
    lines[number] = lines[number][:-9]
    log.write_bytes(b"\n".join([*lines, b""]))
    line = range(1, len(lines) + 1)[number]
    shown, facts = call("trace", "show", run), json.loads(call("trace", "show", run, "--json").stdout)
    assert shown.exit_code == 0 and f"line {line} cannot be read" in shown.stdout
    assert (facts["damaged_lines"], len(facts["attempts"])) == ([line], 2)
    page = place / "page.html"
    assert call("trace", "export", run, str(page)).exit_code == 0
    assert f"line {line} cannot be read" in page.read_text("utf-8")


def test_a_log_without_a_readable_state_is_named(place: Path) -> None:
    run = draw("two things", seed=7).run_id
    home().events_file(run).write_bytes(b"{}\n")
    shown = call("trace", "show", run)
    assert (shown.exit_code, "events.jsonl: line 1" in shown.stderr) == (2, True)


def junk(file: Path) -> None:
    """Replace a database by something else."""
    file.write_bytes(b"no database" * 500)


def foreign_tables(file: Path) -> None:
    """Replace a database by another program's, with tables of the same names."""
    file.unlink()
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE checkpoints (a)")
        db.execute("CREATE TABLE writes (a)")


def foreign_content(file: Path) -> None:
    """Replace what a checkpoint holds by bytes of another form."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE checkpoints SET checkpoint = ?", (b"\xc1\xff\x00",))


@pytest.mark.parametrize("spoil", [junk, foreign_tables, foreign_content])
@pytest.mark.parametrize("seconds", [None, 60.0])
def test_a_foreign_checkpoint_is_named(
    place: Path, spoil: Callable[[Path], None], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seconds:
        monkeypatch.setenv("PLEINAIR_BUDGET__SECONDS", str(seconds))
    run = interrupted()
    file = home().run(run.id) / "checkpoints.sqlite"
    for log in file.parent.glob("checkpoints.sqlite-*"):
        log.unlink()
    spoil(file)
    outcome = resume(run.id).outcome
    assert (outcome.ending, "checkpoints.sqlite" in outcome.reason) == ("failed", True), outcome.reason
    assert draw("two things", seed=9).outcome.ending == "accepted"
    assert call("runs", "list").exit_code == 0


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only() -> Iterator[None]:
    """Take this process the right to write into the home."""
    folders = [folder for folder in home().home.rglob("*") if folder.is_dir()]
    for path in (home().home, *folders):
        path.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in (home().home, *folders):
            path.chmod(0o755)


@pytest.fixture
def open_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a home that every user may read."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.setenv("PLEINAIR_HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    quick_engines.write_library(folder / "library")
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", str(folder / "library"))
    monkeypatch.setenv("PLEINAIR_PATHS__OUT", str(folder / "out"))
    monkeypatch.chdir("/")
    yield
    shutil.rmtree(folder)


@pytest.mark.parametrize(("state", "word"), [(full_disk, "full|room"), (read_only, "read-only")])
def test_reading_works_without_writing(
    open_home: None, state: Callable[[], AbstractContextManager[None]], word: str
) -> None:
    run = draw("two things", seed=7)
    commands = [("runs", "list"), ("runs", "show", "last"), ("trace", "show", "last"), ("doctor",)]
    before = [call(*words) for words in commands]
    with state():
        results = [call(*words) for words in commands]
        with pytest.raises(Exception, match=word) as refusal:
            submit("two things")
    assert [result.output for result in results[:3]] == [result.output for result in before[:3]]
    assert run.run_id in results[0].stdout
    assert "Traceback" not in results[3].output and "Move the file away" not in results[3].output
    assert re.search(f"!!  home: .*({word})", results[3].output), results[3].output
    assert "delete" not in str(refusal.value).lower()


def test_a_read_only_home_of_an_earlier_version_has_runs_and_no_threads(open_home: None) -> None:
    with zipfile.ZipFile(Path(__file__).parent / "data" / "home-0.1.zip") as archive:
        for name in archive.namelist():
            if name.endswith("runs.sqlite"):
                home().table_file.write_bytes(archive.read(name))
    with read_only():
        assert Threads().newest(9) == [] and len(run_table().newest(9)) == 7
        with pytest.raises(PleinairError, match="read-only"):
            Threads().create()


CODES = {
    sqlite3.SQLITE_FULL: (DiskFull, "is full"),
    sqlite3.SQLITE_READONLY: (Exception, "is read-only"),
    sqlite3.SQLITE_READONLY | 5 << 8: (Exception, "is read-only"),
    sqlite3.SQLITE_CORRUPT: (BadInput, "Keep it"),
    sqlite3.SQLITE_NOTADB: (BadInput, "Keep it"),
    sqlite3.SQLITE_IOERR: (Exception, "cannot be used"),
}


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_the_table_says_what_to_do(code: int, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    kind, words = CODES[code]
    explained = unusable(error, tmp_path / "runs.sqlite")
    assert isinstance(explained, kind) and words in str(explained)


def test_a_table_that_is_full_says_so(place: Path) -> None:
    draw("two things", seed=7)
    with closing(sqlite3.connect(home().table_file, isolation_level=None)) as db:
        db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as error:
            db.execute("CREATE TABLE more AS SELECT hex(randomblob(100000)) AS x")
    assert isinstance(unusable(error.value, home().table_file), DiskFull)
    assert run_table().newest(1)
