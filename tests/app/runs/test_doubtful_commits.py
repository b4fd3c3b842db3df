"""A database that stores a change and is away before it says so: the change is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pleinair.agent.approval.types import Approval, ApprovalRequest
from pleinair.app.runs.database import Connection
from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.row import Run
from pleinair.app.runs.sqlite_file import SqliteDatabase
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Runs
from pleinair.tools.storage.postgres import DatabaseAway
from pleinair.tools.types import Outcome

T = TypeVar("T")

DONE = Outcome(ending="accepted", reason="every concept is present")
QUESTION = ApprovalRequest(id="i1", before="references", attempt=0, prompt="two things", concepts=())
ANSWER = Approval(before="references")


class Doubtful(SqliteDatabase):
    """Database of which the first confirmation of a change is lost."""

    lost = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as db:
            yield db
        self.lost += 1
        if self.lost == 1:
            raise DatabaseAway("the connection was lost")

    def repeated(self, action: Callable[[bool], T]) -> T:
        self.lost = 0
        try:
            return action(False)
        except DatabaseAway:
            return action(True)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    runs = Runs(tmp_path / "runs.sqlite")
    runs._database = Doubtful(tmp_path / "runs.sqlite")
    return runs


def add(runs: Runs, count: int = 1, **options: Any) -> list[Run]:
    return runs.add_group([("{}", seed) for seed in range(count)], **options)


@pytest.mark.parametrize("key", [None, "k"])
def test_rows_are_written_once(runs: Runs, key: str | None) -> None:
    written: list[int] = []
    first = add(runs, 3, idem_key=key, also=lambda db, rows: written.append(len(rows)))
    assert [run.seed for run in first] == [0, 1, 2]
    assert len(runs.newest(99)) == 3 and written == [3]


def test_a_run_is_claimed_once(runs: Runs) -> None:
    (run,) = add(runs)
    assert runs.claim(run.id, new_owner()) == 1
    with pytest.raises(Busy):
        runs.claim(run.id, new_owner())


def test_a_run_is_released_and_may_have_its_next_holder(runs: Runs) -> None:
    (run,) = add(runs)
    runs.release(run.id, runs.claim(run.id, new_owner()))
    assert runs.get(run.id).status == "queued"
    fence = runs.claim(run.id, new_owner())
    with pytest.raises(LeaseLost):
        runs.release(run.id, fence - 1)


def test_an_outcome_is_written(runs: Runs) -> None:
    (run,) = add(runs)
    runs.commit(run.id, runs.claim(run.id, new_owner()), DONE)
    assert runs.get(run.id).outcome == DONE
    with pytest.raises(Finished):
        runs.claim(run.id, new_owner())


def test_an_answer_is_not_lost_to_a_repeated_question(runs: Runs) -> None:
    """The answer comes between the question and its repetition."""
    (run,) = add(runs)
    fence, database = runs.claim(run.id, new_owner()), runs._database
    assert isinstance(database, Doubtful)
    with pytest.raises(DatabaseAway):
        database.repeated = lambda action: action(False)  # type: ignore[method-assign]
        database.lost = 0
        runs.wait(run.id, fence, QUESTION)
    database.lost = 1
    runs.answer(run.id, QUESTION.id, ANSWER)
    database.repeated = lambda action: action(True)  # type: ignore[method-assign]
    assert runs.wait(run.id, fence, QUESTION)
    answered = runs.get(run.id)
    assert (answered.status, answered.answer_to(QUESTION.id)) == ("queued", ANSWER)


def test_a_question_is_asked_and_answered_once(runs: Runs) -> None:
    (run,) = add(runs)
    assert runs.wait(run.id, runs.claim(run.id, new_owner()), QUESTION)
    assert runs.answer(run.id, QUESTION.id, ANSWER, client="worker").status == "queued"
    assert runs.get(run.id).client == "worker"


def test_a_cancellation_and_a_hand_over_are_requested(runs: Runs) -> None:
    (run,) = add(runs)
    assert runs.request_cancel(run.id).cancel_requested == 1
    runs.hand_over(run.id, "here", reopen=True)
    handed = runs.get(run.id)
    assert (handed.client, handed.cancel_requested, handed.status) == ("here", 0, "queued")
