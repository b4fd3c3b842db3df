"""A run as JSON for every interface, in each of its states."""

from pathlib import Path

from pleinair.app.api import answer, cancel, draw, enqueue, finish, home, run_table
from pleinair.app.trace.fork import fork
from pleinair.app.trace.view import RunView, view_of

PROMPT = "first thing and second thing"


def view(run_id: str) -> RunView:
    shown = view_of(run_table().get(run_id), home())
    assert RunView.model_validate_json(shown.model_dump_json()) == shown
    return shown


def test_an_ended_run_has_its_attempts_and_its_best_image(place: Path) -> None:
    result = draw(PROMPT, seed=1)
    shown = view(result.run_id)
    best = result.outcome.best
    assert best and shown.best_attempt and shown.best_attempt.image == best.picture
    assert (shown.status, shown.has_ended, shown.picture) == ("accepted", True, str(result.picture))
    assert best.ledger and shown.best_attempt.ledger == best.ledger.rows
    assert [reference["id"] for reference in shown.best_attempt.references] == [
        reference.hit.id for reference in best.request.references
    ]
    assert [attempt.number for attempt in shown.attempts] == [0, 1]
    assert shown.usage.images == 2


def test_a_queued_run_has_no_image(place: Path) -> None:
    (run,) = enqueue(PROMPT, client="a")
    shown = view(run.id)
    assert (shown.status, shown.has_ended, shown.attempts, shown.best_attempt) == ("queued", False, (), None)
    cancel(run.id)
    assert (view(run.id).status, view(run.id).has_ended) == ("cancelled", True)


def test_a_waiting_run_has_its_question(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides={"approve": "references"})
    shown = view(waiting.run_id)
    assert (shown.status, shown.has_ended, shown.question) == ("waiting", False, waiting.question)
    assert shown.best == 0
    finish(answer(waiting.run_id))
    assert view(waiting.run_id).question is None


def test_a_fork_names_its_parent_and_a_stopped_run_its_limit(place: Path) -> None:
    stopped = draw(PROMPT, seed=1, overrides={"budget.attempts": 1})
    branch = fork(stopped.run_id, "critique:1", overrides={"budget.attempts": 2})
    assert (view(stopped.run_id).status, view(stopped.run_id).limit) == ("stopped", "attempts")
    parent = view(branch.run_id).parent
    assert parent and (parent.run, parent.step) == (stopped.run_id, "critique:1")
    assert not view(branch.run_id).interrupted
