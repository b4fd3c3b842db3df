"""Runs that wait for a person's approval: their row, events and files, over the end of their process."""

from pathlib import Path

import pytest

from pleinair.app.api import answer, cancel, draw, finish, home, run_table, submit
from pleinair.app.runs.events import Answered, Asked, payloads, read
from pleinair.tools.types import BadInput

PROMPT = "first thing and second thing"
ASKING = {"approve": "references"}


def test_a_run_waits_and_goes_on_as_answered(place: Path) -> None:
    free = draw(PROMPT, seed=1)
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    row = run_table().get(waiting.run_id)
    assert (row.status, row.owner, waiting.outcome.ending) == ("waiting", None, "waiting")
    assert waiting.question is not None and waiting.question.references
    result = finish(answer(row.id))
    assert result.outcome.best and free.outcome.best
    assert result.outcome.best.picture == free.outcome.best.picture
    events = read(home().events(row.id))
    assert len(payloads(events, Asked)) == len(payloads(events, Answered)) == 1


def test_a_driving_model_waits_for_a_person(place: Path) -> None:
    waiting = draw(
        "a telma wren beside a velmora finch",
        graph="react",
        seed=1,
        overrides=ASKING | {"mllm.backend": "talker"},
    )
    assert waiting.question is not None and waiting.question.references
    (reference, *_) = waiting.question.references
    result = finish(answer(waiting.run_id, {"vetoes": [reference.hit.id]}))
    assert result.outcome.best, result.outcome
    used = {(used.concept, used.hit.id) for used in result.outcome.best.request.references}
    assert used and (reference.concept, reference.hit.id) not in used
    assert len(payloads(read(home().events(waiting.run_id)), Asked)) == 1


def test_a_waiting_run_is_not_worked_on(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    before = read(home().events(waiting.run_id))
    assert finish(run_table().get(waiting.run_id)).outcome.ending == "waiting"
    assert read(home().events(waiting.run_id)) == before


def test_a_waiting_run_is_cancelled(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    row = cancel(waiting.run_id)
    assert row.status == "cancelled"
    assert row.outcome and row.outcome.best and row.outcome.best.number == 0


def test_only_a_question_can_be_answered(place: Path) -> None:
    row = submit(PROMPT, seed=1, overrides=ASKING)
    with pytest.raises(BadInput, match="waits for no approval"):
        answer(row.id)
    waiting = finish(row)
    with pytest.raises(BadInput, match="hit 'x.png'"):
        answer(row.id, {"hits": {waiting.question.concepts[0].name: "x.png"}})  # type: ignore[union-attr]
    assert run_table().get(row.id).status == "waiting"


def test_a_graph_that_asks_nobody_is_refused(place: Path) -> None:
    with pytest.raises(BadInput, match="graph 'imagerag' asks nobody; these do: pleinair, react"):
        submit(PROMPT, graph="imagerag", overrides=ASKING)
