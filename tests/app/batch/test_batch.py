"""Batches: every row is executed once, whatever interrupts them, and one failure stops no other row."""

import json
import os
import threading
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from support import quick_engines as quick
from typer.testing import CliRunner, Result

from pleinair.app.api import home, run_table
from pleinair.app.batch.execute import Batch
from pleinair.app.batch.outcomes import OUTCOMES, Outcomes
from pleinair.app.batch.plan import Item, plan_of
from pleinair.app.batch.rows import read_rows
from pleinair.app.batch.source import Source
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Event
from pleinair.app.runs.row import Run
from pleinair.tools.types import PleinairError


def batch(*options: str, file: str = "prompts.txt", stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["batch", file, "--out", "out", *options], input=stdin)


def entries(folder: Path = Path("out")) -> list[dict[str, Any]]:
    text = (folder / OUTCOMES).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def images() -> list[str]:
    """Return the best image of each outcome."""
    return [entry["attempts"][entry["best"]]["image"]["sha256"] for entry in entries()]


def effects() -> Counter[str]:
    """Count the images that were generated, by seed and number of references."""
    log = Path(os.environ["QUICK_LOG"])
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return Counter(line for line in lines if line.startswith("picture"))


@pytest.fixture
def prompts(place: Path) -> Path:
    """Write a file of three prompts."""
    file = place / "prompts.txt"
    file.write_text("two things\n# no prompt\nthree things\ntwo things\n", encoding="utf-8")
    return file


class Nothing:
    """Watch that does nothing."""

    def begin(self, item: Item, run: Run) -> None:
        pass

    def event(self, run: Run, event: Event) -> None:
        pass

    def end(self, item: Item, run: Run | None, ending: str, reason: str, seconds: float) -> None:
        pass


class Stopping(Nothing):
    """Watch that stops the batch after some events."""

    def __init__(self, most: int) -> None:
        self.stop, self.left = threading.Event(), most

    def event(self, run: Run, event: Event) -> None:
        self.left -= 1
        if self.left == 0:
            self.stop.set()


def execute(watch: Nothing, stop: threading.Event, text: str = "two things\nthree things\n") -> Batch:
    rows = read_rows(Source("prompts", text.encode(), "txt", Path.cwd()), {}, {})
    plan = plan_of("prompts", rows, Path("out").absolute())
    with Outcomes(Path("out").absolute()) as outcomes:
        work = Batch(plan, outcomes, run_table(), home())
        work.execute(watch, stop)
    return work


def test_a_batch_draws_each_row_once(prompts: Path) -> None:
    result = batch("--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["images"], summary["done"], summary["endings"]) == (3, 3, {"accepted": 3})
    assert [entry["line"] for entry in entries()] == [1, 3, 4]
    assert len(set(images())) == 3  # equal rows have seeds of their own
    assert all(Path(entry["picture"]).exists() and Path(entry["sidecar"]).exists() for entry in entries())
    assert {Path(path).name for path in summary["sheets"]} == {"index.html", "contact.png"}
    lines = result.stderr.splitlines()
    assert lines[0].startswith("[1/3] accepted ") and "line 1, two things" in lines[0]
    assert lines[-1] == "3 of 3 images done: 3 accepted"

    before, drawn = (images(), effects())
    assert batch().exit_code == 0
    assert (images(), effects()) == (before, drawn)


def test_a_changed_file_keeps_its_rows(prompts: Path) -> None:
    assert batch().exit_code == 0
    before = {entry["key"]: entry["run"] for entry in entries()}
    prompts.write_text("a new thing\n\ntwo things\n", encoding="utf-8")
    assert batch().exit_code == 0
    assert [entry["line"] for entry in entries()] == [1, 3, None, None]
    assert before.items() < {entry["key"]: entry["run"] for entry in entries()}.items()
    assert len(run_table().newest(10)) == 4


def test_the_same_seed_has_the_same_images_elsewhere(prompts: Path) -> None:
    batch()
    first = images()
    CliRunner().invoke(app, ["batch", "prompts.txt", "--out", "elsewhere"])
    other = [entry["attempts"][entry["best"]]["image"]["sha256"] for entry in entries(Path("elsewhere"))]
    assert other == first
    assert batch("--seed", "1").exit_code == 0  # the rows are the same, and have their images
    assert images() == first


def test_images_of_a_row_are_lines_of_their_own(place: Path) -> None:
    row = {"prompt": "two things", "num_images": 2, "seed": 5, "id": "a", "graph": "direct"}
    assert batch(file="-", stdin=json.dumps(row)).exit_code == 0
    assert [(e["id"], e["image"], e["seed"], e["status"]) for e in entries()] == [
        ("a", 1, 5, "unchecked"),
        ("a", 2, 6, "unchecked"),
    ]


def test_models_are_built_once(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    real = quick.Stripes.__init__

    @wraps(real)  # its arguments are checked, by what is then known of the class
    def build(self: quick.Stripes, *args: Any, **options: Any) -> None:
        built.append(options)
        real(self, *args, **options)

    monkeypatch.setattr(quick.Stripes, "__init__", build)
    monkeypatch.setattr(quick.Stripes, "declare", classmethod(lambda cls, **options: None), raising=False)
    batch("--set", "generator.pause=0.00023")
    assert len([options for options in built if options.get("pause") == 0.00023]) == 1


def test_a_kill_between_the_end_of_a_run_and_its_outcome_costs_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(self: Outcomes, entry: dict[str, Any]) -> None:
        path = Path("out") / OUTCOMES
        path.write_bytes(path.read_bytes() + json.dumps(entry).encode()[:100])  # as far as it came
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Outcomes, "append", kill)
        with pytest.raises(Killed):
            execute(Nothing(), threading.Event())
    assert [run.status for run in run_table().newest(9)] == ["accepted"]
    drawn = effects()
    execute(Nothing(), threading.Event())
    assert [entry["line"] for entry in entries()] == [1, 2]
    assert all(effects()[line] == count for line, count in drawn.items())
    assert len(run_table().newest(9)) == 2


def test_a_stop_loses_at_most_a_step(place: Path) -> None:
    calm = images() if execute(Nothing(), threading.Event()) else []
    drawn = effects()
    for file in Path("out").iterdir():
        file.unlink()
    with run_table().transaction() as db:
        db.execute("DELETE FROM runs")
    Path(os.environ["QUICK_LOG"]).unlink()
    calls = 0
    while True:
        calls += 1
        watch = Stopping(3 * calls)  # a step that is stopped again and again would never end
        work = execute(watch, watch.stop)
        assert all(run.status != "cancelled" for run in run_table().newest(9))
        if not work.left():
            break
        assert work.progress.is_interrupted
    assert calls > 2
    assert images() == calm
    assert effects() == drawn
    assert len(entries()) == len(run_table().newest(9)) == 2


def test_a_row_that_fails_stops_no_other_and_is_tried_again(
    prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = quick.Stripes.generate

    def generate(self: quick.Stripes, request: Any, *rest: Any) -> Any:
        if request.prompt.startswith("three"):
            raise RuntimeError("the lamp is out")
        return real(self, request, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(quick.Stripes, "generate", generate)
        assert batch("--stop-on-error").exit_code == 5
        assert [entry["status"] for entry in entries()] == ["accepted", "failed"]
        result = batch()
    assert result.exit_code == 5
    assert [entry["status"] for entry in entries()] == ["accepted", "failed", "accepted"]
    assert "--retry-failed" in result.stderr
    assert batch().exit_code == 5  # an outcome stays one
    assert batch("--retry-failed").exit_code == 0
    assert [entry["status"] for entry in entries()] == ["accepted"] * 3
    assert len(run_table().newest(9)) == 3


def test_a_folder_that_cannot_be_written_to_is_one_fault(prompts: Path) -> None:
    Path("out").touch()
    result = batch()
    assert result.exit_code == 2
    assert "must be a folder" in result.stderr and "line" not in result.stderr


def test_a_run_that_ends_elsewhere_changes_its_outcome(prompts: Path) -> None:
    batch()
    run = entries()[0]["run"]
    outcome = run_table().get(run).outcome
    assert outcome
    changed = outcome.model_copy(update={"ending": "stopped"}).model_dump_json()
    with run_table().transaction() as db:
        db.execute("UPDATE runs SET status = 'stopped', outcome_json = ? WHERE id = ?", (changed, run))
    assert batch().exit_code == 3
    assert Counter(entry["run"] for entry in entries()).most_common(1)[0][1] == 1
    assert entries()[0]["status"] == "stopped"


def test_deleted_images_come_back_without_being_drawn(prompts: Path) -> None:
    batch()
    drawn, first = effects(), images()
    for file in Path("out").iterdir():
        file.unlink()
    assert batch().exit_code == 0
    assert (effects(), images()) == (drawn, first)
    assert all(Path(entry["picture"]).exists() for entry in entries())


def test_an_image_is_called_like_its_row_and_the_author_s_columns_come_along(place: Path) -> None:
    table = "id;prompt;n;graph;Größe\nN° 1/cover;two things;2;direct;klein\n"
    assert batch(file="-", stdin=json.dumps({"prompt": "two things", "id": "../x"})).exit_code == 0
    Path("p.csv").write_text(table, encoding="utf-8")
    result = batch(file="p.csv")
    assert result.exit_code == 0
    assert "your own columns, only copied to the outcomes: Größe" in result.stderr
    done = {(entry["id"], entry["image"]): entry for entry in entries()}
    names = [Path(done[place]["picture"]).name for place in sorted(done)]
    runs = [done[place]["run"] for place in sorted(done)]
    assert names == [f"x-{runs[0]}.png", f"N-1-cover-1-{runs[1]}.png", f"N-1-cover-2-{runs[2]}.png"]
    assert done["N° 1/cover", 2]["columns"] == {"Größe": "klein"}

    Path("p.csv").write_text("\n" + table.replace("klein", "mittel"), encoding="utf-8")
    drawn = effects()
    assert batch(file="p.csv").exit_code == 0
    assert effects() == drawn
    assert [(entry["line"], entry["columns"]) for entry in entries()][0] == (3, {"Größe": "mittel"})


def test_a_folder_that_has_moved_has_its_files(prompts: Path) -> None:
    batch()
    drawn, first = effects(), images()
    Path("out").rename("elsewhere")
    moved = [Path(entry["picture"]).name for entry in entries(Path("elsewhere"))]
    (Path("elsewhere") / moved[0]).unlink()
    assert CliRunner().invoke(app, ["batch", "prompts.txt", "--out", "elsewhere"]).exit_code == 0
    Path("elsewhere").rename("out")
    assert batch().exit_code == 0
    assert (effects(), images()) == (drawn, first)
    folder = Path("out").absolute()
    assert [entry["picture"] for entry in entries()] == [str(folder / name) for name in moved]
    assert all(Path(entry[name]).exists() for entry in entries() for name in ("picture", "sidecar"))
    assert str(folder.parent) not in (folder / "index.html").read_text("utf-8")


def test_all_rows_are_checked_before_any_is_drawn(place: Path) -> None:
    Path("p.jsonl").write_text(
        '{"prompt": "a"}\n{"prompt": "b", "seed": -1}\n{"prompt": "c", "graph": "nope"}\n'
        '{"prompt": "d", "retrieval.k": 0}\n{"prompt": "e", "input_images": ["none.png"]}\n',
        encoding="utf-8",
    )
    result = batch(file="p.jsonl")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0] == "pleinair: p.jsonl: 4 lines cannot be used; nothing was generated"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["line 2", "line 3", "line 4", "line 5"]
    assert not Path("out").exists() and not home().table_file.exists()


def test_a_dry_run_estimates_what_is_left_and_writes_nothing(prompts: Path) -> None:
    result = batch("--dry-run", "--json")
    estimate = json.loads(result.stdout)
    assert (estimate["rows"], estimate["left"], estimate["runs"], estimate["is_paid"]) == (3, 3, 3, False)
    assert estimate["pictures"]["low"] == 3
    assert not Path("out").exists() and not home().table_file.exists()
    batch()
    assert json.loads(batch("--dry-run", "--json").stdout)["left"] == 0
    assert "3 rows, 0 left" in batch("--dry-run").stdout


def test_what_costs_money_is_confirmed_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    hosted = ("generator.backend=openai_images", "generator.model=gpt-image-2.5-flare")
    options = [part for setting in hosted for part in ("--set", setting)]
    result = batch("--graph", "direct", *options, file="-", stdin="a wren")
    assert result.exit_code == 2
    assert "US dollars" in result.stderr and "Confirm it with --yes" in result.stderr
    assert not Path("out").exists()


def test_a_folder_has_one_batch_at_a_time(prompts: Path) -> None:
    with Outcomes(Path("out").absolute()):
        result = batch()
    assert result.exit_code == 6
    assert "another batch is writing to this folder" in result.stderr


def test_a_foreign_file_is_not_overwritten(prompts: Path) -> None:
    Path("out").mkdir()
    (Path("out") / OUTCOMES).write_text('{"mine": 1}\n', encoding="utf-8")
    assert batch().exit_code == 2
    assert (Path("out") / OUTCOMES).read_text("utf-8") == '{"mine": 1}\n'


def test_rows_that_wait_have_no_outcome_yet(prompts: Path) -> None:
    result = batch("--set", "approve=draft")
    assert result.exit_code == 7
    assert entries() == []
    assert {run.status for run in run_table().newest(9)} == {"waiting"}
    assert "3 waiting" in result.stderr


def test_several_rows_that_cannot_be_executed_end_the_batch(
    prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise PleinairError("the disk is full")

    monkeypatch.setattr("pleinair.app.batch.execute.perform", fail)
    result = batch()
    assert result.exit_code == 5
    assert result.stderr.splitlines()[-1] == "pleinair: the disk is full"
    assert entries() == []
