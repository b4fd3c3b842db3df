from __future__ import annotations

from pathlib import Path

from pleinair.app.runs.events import Event, EventLog, Progress, StepFinished, StepStarted
from pleinair.evals.scale.startup import _phase, _timed_writes


def at(seq: int, payload: Progress | StepFinished | StepStarted, step: str, attempt: int = 0) -> Event:
    kind = {Progress: "progress", StepFinished: "step_finished", StepStarted: "step_started"}[type(payload)]
    return Event.model_validate(
        {"seq": seq, "at": float(seq), "kind": kind, "step": step, "attempt": attempt, "data": payload}
    )


def test_an_interval_belongs_to_the_step_that_works_in_it() -> None:
    events = [
        at(0, StepFinished(), "begin"),
        at(1, StepStarted(), "draft"),
        at(2, Progress(), "generate"),
        at(3, StepFinished(), "draft"),
        at(4, StepStarted(), "generate", 1),
        at(5, Progress(), "generate", 1),
    ]
    phases = [_phase(*pair) for pair in zip(events, events[1:], strict=False)]
    assert phases == ["between the steps", "draft", "draft", "between the steps", "generate"]


def test_writes_are_counted_for_the_block_only(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with _timed_writes() as seconds:
        log.write(StepStarted(), "begin")
        counted = seconds["(event log)"]
    log.write(StepFinished(), "begin")
    log.close()
    assert counted > 0 and seconds["(event log)"] == counted
    assert seconds["(images' files)"] == 0
