"""Runs that wait for a person's approval: their row, events and files, over the end of their process."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pleinair.app.api import accept, answer, cancel, draw, finish, home, run_table, submit, submit_images
from pleinair.app.runs.events import Answered, Asked, Ended, payloads, read
from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.request import check_settings, read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.worker import work
from pleinair.app.settings import load
from pleinair.app.trace.trace import trace_begun
from pleinair.tools.types import BadInput, Usage

PROMPT = "first thing and second thing"
ASKING = {"approve": "references"}
WORKER = """
import threading
from pleinair.app.api import home, run_table
from pleinair.app.runs.worker import work
work(run_table(), home(), threading.Event())
"""


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
        "a barn owl and a blue jay",
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


def test_the_trace_says_what_was_vetoed(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    assert waiting.question is not None
    (reference, *_) = waiting.question.references
    finish(answer(waiting.run_id, {"vetoes": [reference.hit.id]}))
    attempt = trace_begun(run_table().get(waiting.run_id), home()).attempt_traces[1]
    reasons = {
        hit.id: attempt.why_unselected(retrieval, rank, hit) for retrieval, rank, hit in attempt.unselected
    }
    assert reasons[reference.hit.id] == "vetoed"
    assert set(reasons.values()) > {"vetoed"}


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
    check_settings(load(None, ASKING), "a name of a program's own")


def queued(client: str, **overrides: Any) -> Run:
    """Queue a run with the seed 1 for a worker."""
    request = read_request(submit(PROMPT, seed=1, overrides=overrides).request_json)
    return run_table().add_group(request.rows(), client=client)[0]


def killed_at(status: str, run: Run) -> None:
    """Let a worker process execute the queue, and kill it when a run has a status."""
    process = subprocess.Popen([sys.executable, "-c", WORKER], env=os.environ)
    try:
        while run_table().get(run.id).status != status:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


def work_off() -> None:
    work(run_table(), home(), threading.Event(), idle=0.2)


@pytest.mark.slow
def test_an_approval_outlives_its_workers(place: Path) -> None:
    at_once = draw(PROMPT, seed=1, overrides=ASKING)
    expected = finish(answer(at_once.run_id)).outcome
    run = queued("a", **ASKING)
    killed_at("waiting", run)
    answer(run.id)
    run_table().claim(run.id, new_owner().model_copy(update={"started": "before"}))  # and dies too
    work_off()
    row = run_table().get(run.id)
    assert row.outcome and row.outcome.best and expected.best and row.deaths == 1
    assert row.outcome.ending == expected.ending
    assert row.outcome.best.picture == expected.best.picture
    assert row.outcome.best.request == expected.best.request


def test_another_run_finishes_while_one_waits(place: Path) -> None:
    first, second = queued("a", **ASKING), queued("a")
    work_off()
    assert [run_table().get(run.id).status for run in (first, second)] == ["waiting", "accepted"]
    devices = home().home / "devices"
    assert not devices.exists() or not list(devices.rglob("*.ticket"))


def test_only_one_of_many_answers_counts(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKING)
    results: list[bool] = []

    def decide() -> None:
        try:
            answer(waiting.run_id)
        except BadInput as error:
            assert "answered already" in str(error)
            results.append(False)
        else:
            results.append(True)

    threads = [threading.Thread(target=decide) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert finish(run_table().get(waiting.run_id)).outcome.ending == "accepted"


def test_the_time_of_a_person_is_not_counted(place: Path) -> None:
    began = time.monotonic()
    waiting = draw(PROMPT, seed=1, overrides=ASKING | {"budget.seconds": 1000})
    worked = time.monotonic() - began
    time.sleep(1)
    began = time.monotonic()
    result = finish(answer(waiting.run_id))
    worked += time.monotonic() - began
    (end,) = payloads(read(home().events(result.run_id)), Ended)
    assert Usage.total(list(end.usage)).seconds <= worked


def test_images_of_a_group_wait_each_for_itself(place: Path) -> None:
    runs = submit_images(PROMPT, num_images=3, seed=1, overrides=ASKING)
    assert all(finish(run).question for run in runs)
    answer(runs[1].id, False)
    accept(runs[2].id)
    assert [finish(run_table().get(run.id)).outcome.ending for run in runs] == [
        "waiting", "cancelled", "accepted",
    ]  # fmt: skip
