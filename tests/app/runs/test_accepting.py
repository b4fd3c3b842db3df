"""A run whose image a person accepts early ends with it, whatever happens meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pleinair.app.api import accept, answer, cancel, draw, finish, home, resume, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Ended, Event, payloads, read
from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.row import ACCEPT
from pleinair.tools.types import BadInput, Outcome

PROMPT = "first thing and second thing"
ASKING = {"approve": "references"}
ENDLESS = {"mllm.satisfied": False, "budget.attempts": 2}


def at(kind: str, step: str, action: Callable[[str], object], run_id: str) -> Callable[[Event], None]:
    """Return a callback that acts on a run at its first event of a kind and step."""
    done = list[object]()

    def on_event(event: Event) -> None:
        if (event.kind, event.step) == (kind, step) and not done:
            done.append(True)
            action(run_id)

    return on_event


def require_accepted(outcome: Outcome | None, number: int) -> None:
    assert outcome and outcome.best
    assert (outcome.ending, outcome.accepted_by, outcome.limit) == ("accepted", "person", None)
    assert outcome.best.number == number


def test_a_waiting_run_ends_at_once(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    row = accept(waiting.run_id)
    require_accepted(row.outcome, 0)
    result = finish(row)
    assert result.picture and result.picture.exists()
    sidecar = json.loads(result.sidecar.read_text("utf-8"))
    assert sidecar["models"]["generator"] == "stripes" and sidecar["outcome"]["accepted_by"] == "person"
    with pytest.raises(BadInput, match="it waits for no approval"):
        answer(row.id)


def test_a_run_at_work_ends_at_its_next_step(place: Path) -> None:
    run = submit(PROMPT, seed=1, overrides=ENDLESS)
    require_accepted(resume(run.id, at("step_started", "generate", accept, run.id)).outcome, 0)


@pytest.mark.parametrize("step", ["critique", "finish"])
def test_a_run_that_has_just_reached_its_limit_is_accepted_all_the_same(place: Path, step: str) -> None:
    run = submit(PROMPT, seed=1, overrides=ENDLESS | {"budget.attempts": 1})
    require_accepted(resume(run.id, at("step_finished", step, accept, run.id)).outcome, 0)


@pytest.mark.parametrize(("request_end", "ending"), [(accept, "accepted"), (cancel, "cancelled")])
def test_a_run_that_is_to_end_does_not_begin_to_wait(
    place: Path, request_end: Callable[[str], object], ending: str
) -> None:
    run = submit(PROMPT, seed=1, overrides=ASKING)
    outcome = resume(run.id, at("asked", "", request_end, run.id)).outcome
    assert outcome.best and (outcome.ending, outcome.best.number) == (ending, 0)
    assert run_table().get(run.id).status == ending


@pytest.mark.parametrize("continue_run", [resume, lambda id: finish(run_table().get(id))])
def test_a_run_whose_process_died_is_accepted(place: Path, continue_run: Callable[[str], Any]) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    row = answer(waiting.run_id)
    run_table().claim(row.id, new_owner().model_copy(update={"started": "before"}))
    run_table().request_accept(row.id)
    require_accepted(continue_run(row.id).outcome, 0)
    (end,) = payloads(read(home().events(row.id)), Ended)
    assert end.outcome.accepted_by == "person" and end.attempts


def test_a_run_without_an_image_or_with_an_end_is_refused(place: Path) -> None:
    run = submit(PROMPT, seed=1)
    with pytest.raises(BadInput, match="it has no image yet"):
        accept(run.id)
    assert run_table().get(run.id).cancel_requested != ACCEPT
    finish(run)
    with pytest.raises(BadInput, match="it has ended already"):
        accept(run.id)


def test_a_fork_has_the_images_of_its_parent(place: Path) -> None:
    from pleinair.app.trace.fork import submit_fork

    parent = draw(PROMPT, seed=1, overrides=ENDLESS)
    child = submit_fork(parent.run_id, at="generate:1")
    require_accepted(resume(child.id, at("step_started", "generate", accept, child.id)).outcome, 0)


def test_the_commands_answer_and_accept(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    question = waiting.question
    assert question
    name, used = question.references[0].concept, question.references[0].hit.id
    other = next(hit.id for hit in question.retrievals[0].hits if hit.id != used)

    def call(*words: str) -> Any:
        return CliRunner().invoke(app, ["runs", *words])

    refused = call("answer", "last", "--use", f"{name}=nothing.png")
    assert refused.exit_code == 2 and "nothing.png" in refused.stderr
    assert call("answer", "last", "--use", "x").exit_code == 2
    answered = call("answer", "last", "--use", f"{name}={other}", "--json")
    outcome = Outcome.model_validate(json.loads(answered.stdout)["outcome"])
    assert outcome.best and [r.hit.id for r in outcome.best.request.references] == [other]
    assert call("accept", "last").exit_code == 2
    again = draw(PROMPT, seed=1, overrides=ASKING)
    assert "has ended: accepted" in call("accept", again.run_id).stdout


def test_an_image_of_ones_own_is_given_by_the_command(place: Path) -> None:
    from PIL import Image

    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    assert waiting.question
    name = waiting.question.references[0].concept
    Image.new("RGB", (8, 8), "red").save(place / "mine.png")
    row = answer(waiting.run_id, input_images={name: place / "mine.png"})
    outcome = finish(row).outcome
    assert outcome.best
    (reference,) = outcome.best.request.references
    assert (reference.hit.caption, reference.hit.id) == ("mine.png", reference.picture.sha256)
