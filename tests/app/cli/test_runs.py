"""Commands of runs: approval, its answer, deletion and retention."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from support.quick_engines import Stripes
from typer.testing import CliRunner, Result

from pleinair.app.api import draw, home, run_table, submit
from pleinair.app.cli import question, run
from pleinair.app.cli.main import app
from pleinair.app.runs.question import hits_of
from pleinair.app.runs.row import Run
from pleinair.tools.types import GenerateRequest

PROMPT = "two things"
WAIT = 30  # seconds until a test fails in which something waits for ever


def call(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def waiting() -> Run:
    result = call("draw", PROMPT, "--seed", "7", "--approve", "references")
    (row,) = run_table().newest(9)
    assert result.exit_code == 7 and result.stdout == ""
    assert f"pleinair runs answer {row.id}" in result.stderr
    return row


def test_a_waiting_run_is_shown_with_numbers_and_approved(place: Path) -> None:
    row = waiting()
    shown = call("runs", "show", row.id).stdout
    assert "* " in shown and f"pleinair runs answer {row.id}" in shown
    assert row.question and all(hit.id in shown for hit in hits_of(row.question))
    assert call("runs", "answer", row.id).exit_code == 0
    assert call("runs", "answer", row.id).exit_code == 2


def test_references_are_vetoed_and_chosen_by_number_id_or_file(place: Path) -> None:
    row = waiting()
    assert row.question
    used = row.question.references[0]
    hits = hits_of(row.question)
    other = next(
        hit for found in row.question.retrievals if found.concept == used.concept for hit in found.hits
        if hit.id != used.hit.id
    )  # fmt: skip
    number = hits.index(other) + 1
    by_number = question.approval_of(
        row.question, [str(hits.index(used.hit) + 1)], [f"{used.concept}={number}"]
    )
    by_id = question.approval_of(row.question, [used.hit.id], [f"{used.concept}={other.id}"])
    assert by_number == by_id
    file = next((place / "library").rglob("*.png"))
    assert question.approval_of(row.question, uses=[f"{used.concept}={file}"])[1] == {used.concept: str(file)}
    result = call("runs", "answer", row.id, "--veto", used.hit.id, "--use", f"{used.concept}={number}")
    assert result.exit_code in (0, 3)
    outcome = run_table().get(row.id).outcome
    assert outcome and outcome.best
    ids = {reference.hit.id for reference in outcome.best.request.references}
    assert used.hit.id not in ids and other.id in ids


@pytest.mark.parametrize(
    "options",
    [["--veto", "99"], ["--use", "first thing"], ["--use", "first thing=none.png"], ["--rename", "=x"],
     ["--use", "no concept=1"], ["--veto", "0"]],
)  # fmt: skip
def test_a_wrong_answer_changes_nothing(place: Path, options: list[str]) -> None:
    row = waiting()
    result = call("runs", "answer", row.id, *options)
    assert result.exit_code == 2 and result.stderr.startswith("pleinair: ")
    assert run_table().get(row.id).status == "waiting"


def test_an_answer_stops_the_run_or_leaves_it_to_the_workers(place: Path) -> None:
    first = waiting()
    assert call("runs", "answer", first.id, "--stop").exit_code == 130
    call("draw", PROMPT, "--seed", "8", "--approve", "references")
    row = run_table().newest(1)[0]
    assert call("runs", "answer", row.id, "--queue").exit_code == 0
    assert [queued.id for queued in run_table().queue()] == [row.id]


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("perhaps\nn\n", 130), ("e\n99\n\n\n\n\n\ny\n", 0)])
def test_a_terminal_is_asked_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    monkeypatch.setattr(run, "has_terminal", lambda: True)
    result = call("draw", PROMPT, "--seed", "7", "--approve", "references", stdin=typed)
    assert result.exit_code == code, result.output
    assert "Go on?" in result.stderr
    assert run_table().newest(1)[0].outcome


def test_answered_runs_are_at_work_at_once_on_several_devices(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, generate = threading.Barrier(2), Stripes.generate

    def meeting(self: Stripes, request: GenerateRequest, images: Any, on_step: Any) -> Any:
        if request.references:  # after the answer
            both.wait(WAIT)
        return generate(self, request, images, on_step)

    monkeypatch.setattr(Stripes, "generate", meeting)
    monkeypatch.setattr(run, "has_terminal", lambda: True)
    monkeypatch.setattr("pleinair.app.api.shared_runs", lambda runs: (2, [[row] for row in runs]))
    options = ["--seed", "7", "--num-images", "3", "--approve", "references"]
    result = call("draw", PROMPT, *options, stdin="y\nn\ny\n")
    assert result.exit_code == 130, result.output  # of the run that was stopped
    assert result.stderr.count("Go on?") == 3
    assert sorted(row.status for row in run_table().newest(9)) == ["accepted", "accepted", "cancelled"]
    assert result.stdout.count(".json\n") == 3 and not both.broken


def test_runs_are_deleted_with_yes_only(place: Path) -> None:
    gone, opened = draw(PROMPT, seed=1, graph="direct").run_id, submit(PROMPT).id
    refused = call("runs", "delete", gone, opened)
    assert refused.exit_code == 2 and "--yes" in refused.stderr
    assert len(run_table().newest(9)) == 2
    result = call("runs", "delete", gone, opened, "--yes")
    assert result.exit_code == 0
    assert f"{opened} stays: it has not ended" in result.stdout and "1 run, " in result.stdout
    assert [row.id for row in run_table().newest(9)] == [opened]
    assert len(list((place / "out").iterdir())) == 2


def test_runs_are_pruned_by_age(place: Path) -> None:
    old, new = (draw(PROMPT, seed=seed, graph="direct").run_id for seed in (1, 2))
    db = sqlite3.connect(home().table_file)
    db.execute("UPDATE runs SET updated = 1000 WHERE id = ?", (old,))
    db.commit()
    db.close()
    dry = call("runs", "prune", "--older-than", "30d", "--dry-run")
    assert old in dry.stdout and new not in dry.stdout and "would be deleted" in dry.stdout
    assert len(run_table().newest(9)) == 2
    assert call("runs", "prune", "--older-than", "30d", "--yes").exit_code == 0
    assert [row.id for row in run_table().newest(9)] == [new]
    assert call("runs", "prune", "--larger-than", "0MB", "--yes").exit_code == 0
    assert run_table().newest(9) == []


@pytest.mark.parametrize(
    "options", [[], ["--older-than", "soon"], ["--larger-than", "2"], ["--larger-than", "2 bananas"]]
)
def test_prune_needs_a_measure(place: Path, options: list[str]) -> None:
    result = call("runs", "prune", *options, "--yes")
    assert result.exit_code == 2 and result.stderr.startswith("pleinair: ")
