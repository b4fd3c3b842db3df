"""Event log: append-only, typed, and readable after any crash."""

import json
import os
import resource
import threading
from pathlib import Path
from typing import Any

import pytest

from pleinair.app.runs.events import (
    KINDS,
    Branch,
    Call,
    Ended,
    Event,
    EventLog,
    Payload,
    Progress,
    Resumed,
    Snapshot,
    Started,
    StepFinished,
    StepStarted,
    payloads,
    read,
)
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import BadInput, Concept, Outcome, Repair, Usage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "events.jsonl"


def write(path: Path, count: int) -> None:
    log = EventLog(path)
    for number in range(count):
        log.write(Progress(done=number), "generate", number)
    log.close()


def test_written_events_are_read(path: Path) -> None:
    write(path, 3)
    assert [(event.seq, event.data, event.attempt) for event in read(path)] == [
        (number, Progress(done=number), number) for number in range(3)
    ]


SNAPSHOT: dict[str, Any] = {"run": "r", "prompt": "p", "graph": "g", "seed": 7, "models": {"mllm": "m"}}
PAYLOADS: list[Payload] = [
    Started(**SNAPSHOT, parent=Branch(run="q", step="plan:1"), concepts=(Concept(name="a", caption="b"),)),
    Resumed(**SNAPSHOT, usage=(Usage(images=1),)),
    StepStarted(),
    StepStarted(call=Call(name="retrieve", about="a wren")),
    Progress(done=1, total=3),
    Progress(text="I look.", error="no hit"),
    StepFinished(repairs=(Repair(concept="a", action="reword"),)),
    StepFinished.model_validate({"messages": [{"type": "human"}], "outcome": None}),
    Ended(**SNAPSHOT, outcome=Outcome(ending="stopped", reason="x", limit="usd"), versions={"python": "3"}),
]


def test_every_payload_is_read_as_written(path: Path) -> None:
    log = EventLog(path)
    for payload in PAYLOADS:
        log.write(payload, "step")
    log.close()
    events = read(path)
    assert [event.data for event in events] == PAYLOADS
    assert [type(event.data) for event in events] == [type(payload) for payload in PAYLOADS]
    assert [event.kind for event in events] == [KINDS[type(payload)] for payload in PAYLOADS]
    assert len(payloads(events, Snapshot)) == 3


def test_a_line_of_an_earlier_version_is_typed_too(path: Path) -> None:
    path.parent.mkdir()
    base = {"v": 1, "seq": 0, "at": 1.0, "step": "generate", "attempt": 1}
    usage = [{"seconds": 1.0, "images": 1, "mllm_calls": 0, "tokens": 0, "usd": 0.0}]
    data: list[dict[str, Any]] = [
        base | {"kind": "progress", "data": {"step": "generate", "done": 1, "total": 3}},
        base | {"kind": "step_finished", "data": {"usage": usage, "decision": {"match": True}}},
        base | {"kind": "ended", "data": SNAPSHOT | {"outcome": {"ending": "stopped", "reason": "usd"}}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in data), encoding="utf-8")
    progress, finished, end = (event.data for event in read(path))
    assert isinstance(progress, Progress) and (progress.done, progress.total) == (1, 3)
    assert isinstance(finished, StepFinished) and finished.usage == (Usage(seconds=1, images=1),)
    assert isinstance(end, Ended) and (end.outcome.limit, end.versions) == ("usd", {})


@pytest.mark.parametrize("change", [{"kind": "nonsense"}, {"kind": "ended"}, {"data": {"done": "half"}}])
def test_a_payload_that_does_not_fit_its_kind_is_refused_by_line(path: Path, change: dict[str, Any]) -> None:
    write(path, 2)
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 2 is not an event"):
        read(path)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("retrieve", {"concept": "barn owl"}, "retrieve 'barn owl'"),
        ("critique", {"picture": 0}, "critique 0"),
        ("generate", {"repairs": [{"concept": "a"}, {"concept": "a"}, {"concept": "b"}]}, "generate 'a, b'"),
        ("generate", {}, "generate"),
        ("decompose", {"wish": "w" * 99}, f"decompose '{'w' * 59}…'"),
    ],
)
def test_a_call_is_named_with_its_subject(name: str, arguments: dict[str, Any], text: str) -> None:
    assert str(Call.of({"name": name, "args": arguments})) == text


def test_a_missing_log_is_empty(path: Path) -> None:
    assert read(path) == []


def test_numbers_continue_after_a_restart(path: Path) -> None:
    write(path, 2)
    write(path, 2)
    assert [event.seq for event in read(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_an_incomplete_last_line_is_omitted_and_then_removed(path: Path, cut: int) -> None:
    write(path, 3)
    os.truncate(path, path.stat().st_size - cut)
    assert [event.seq for event in read(path)] == [0, 1]
    write(path, 1)
    assert [event.seq for event in read(path)] == [0, 1, 2]
    assert path.read_bytes().count(b"\n") == 3


def test_a_log_cut_at_any_byte_is_readable(path: Path) -> None:
    write(path, 2)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        assert len(read(path)) == (length >= first) + (length == len(content))


def test_a_damaged_line_is_reported_by_number(path: Path) -> None:
    write(path, 3)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1][:-4]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 2"):
        read(path)


def test_a_newer_log_is_refused(path: Path) -> None:
    write(path, 1)
    path.write_text(path.read_text(encoding="utf-8").replace('"v":1', '"v":2'), encoding="utf-8")
    with pytest.raises(BadInput, match="version 1"):
        read(path)


def test_every_event_is_passed_on_once_from_any_thread(path: Path) -> None:
    events: list[Event] = []
    log = EventLog(path, events.append)
    threads = [threading.Thread(target=log.write, args=(Progress(done=n),)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert [event.seq for event in read(path)] == list(range(20))
    assert sorted(event.seq for event in events) == list(range(20))


def test_a_full_disk_leaves_a_readable_log(path: Path) -> None:
    write(path, 2)
    size = path.stat().st_size
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        try:
            write(path, 1)
        except DiskFull:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert path.stat().st_size == size
    assert len(read(path)) == 2
