"""Whole runs with quick backends: results, files and endings."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import quick_engines as quick

from pleinair.app.api import cancel, draw, estimate, finish, home, resume, run_table, submit
from pleinair.app.runs.checkpoints import FencedSaver
from pleinair.app.runs.events import Ended, Event, StepFinished, payloads, read
from pleinair.app.runs.results import Result
from pleinair.app.runs.store import Busy, LeaseLost, Runs
from pleinair.tools.storage.files import DiskFull
from pleinair.tools.types import BadInput

PROMPT = "two things"
NEVER = {"mllm.satisfied": False}


def chunks(result: Result) -> dict[str, str]:
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        return dict(picture.text)  # type: ignore[attr-defined]


def effects(place: Path, word: str) -> int:
    return (place / "effects.log").read_text(encoding="utf-8").count(word)


def test_attempts_continue_until_every_concept_is_present(place: Path) -> None:
    result = draw(PROMPT, seed=7)
    assert (result.outcome.ending, result.seed) == ("accepted", 7)
    assert result.outcome.best is not None and result.outcome.best.number == 1
    assert run_table().get(result.run_id).status == "accepted"


def test_a_run_stops_at_its_limit_with_the_best_image(place: Path) -> None:
    result = draw(PROMPT, seed=7, overrides=NEVER | {"budget.attempts": 2})
    assert (result.outcome.ending, result.outcome.limit) == ("stopped", "attempts")
    assert result.picture is not None and result.picture.exists()


def test_the_image_has_metadata(place: Path) -> None:
    result = draw(PROMPT, seed=7)
    metadata = json.loads(chunks(result)["pleinair"])
    assert (metadata["run"], metadata["prompt"], metadata["seed"]) == (result.run_id, PROMPT, 7)
    assert metadata["models"] == {"generator": "stripes", "encoder": "hashes", "mllm": "quick"}
    credits = [(credit["concept"], credit["license"]) for credit in metadata["references"]]
    assert credits == [("second thing", "CC0-1.0")]
    assert "Steps: 3, CFG scale: 1.0, Seed: 7, Size: 16x16, Model: stripes" in chunks(result)["parameters"]


def test_the_sidecar_holds_everything(place: Path) -> None:
    sidecar = json.loads(draw(PROMPT, seed=7).sidecar.read_text(encoding="utf-8"))
    assert sidecar["order"]["prompt"] == PROMPT
    assert [attempt["number"] for attempt in sidecar["attempts"]] == [0, 1]
    assert sidecar["retrievals"][0]["hits"][0]["license"] == "CC0-1.0"
    assert sidecar["references"][0]["source"].startswith("https://example.org/")
    assert sidecar["versions"]["python"] == sys.version.split()[0]


def test_metadata_can_be_stripped(place: Path) -> None:
    assert chunks(draw(PROMPT, seed=7, strip_metadata=True)) == {}


def test_the_same_seed_gives_the_same_pixels(place: Path) -> None:
    first, second = draw(PROMPT, seed=7), draw(PROMPT, seed=7)
    assert first.outcome.best is not None and second.outcome.best is not None
    assert first.outcome.best.picture == second.outcome.best.picture
    assert first.picture != second.picture


def test_a_random_seed_is_stored(place: Path) -> None:
    result = draw(PROMPT)
    again = draw(PROMPT, seed=run_table().get(result.run_id).seed)
    assert result.outcome.best is not None and again.outcome.best is not None
    assert result.outcome.best.picture == again.outcome.best.picture


def test_an_unused_encoder_is_recorded_by_its_label(place: Path) -> None:
    metadata = json.loads(chunks(draw(PROMPT, graph="direct"))["pleinair"])
    assert metadata["models"]["encoder"] == "quick"


def test_another_graph(place: Path) -> None:
    result = draw(PROMPT, graph="direct")
    assert result.outcome.ending == "unchecked"
    assert effects(place, "question") == 0


@pytest.mark.parametrize(
    ("prompt", "arguments", "words"),
    [
        ("", {}, "prompt: it is empty"),
        (" \n", {}, "prompt: it is empty"),
        ("x" * 2001, {}, "2,001 characters; wanted at most 2,000"),
        ("a\0b", {}, "NUL character at position 1"),
        ("a\ud800", {}, "half a character at position 1"),
        ("a", {"seed": -1}, "seed -1: must be 0 to"),
        ("a", {"seed": 2**63}, "must be 0 to 9223372036854775807"),
        ("a", {"graph": "nonsense"}, "graph 'nonsense': unknown; accepted: .*pleinair"),
        ("a", {"profile": "nonsense"}, "no such profile"),
        ("a", {"overrides": {"budget.attempts": 0}}, "budget.attempts = 0: no image could be generated"),
        ("a", {"overrides": {"generator.backend": "nonsense"}}, "generator.backend = 'nonsense': unknown"),
        ("a", {"overrides": {"library.folder": "/nowhere"}}, "library.folder = '/nowhere': no such folder"),
        (
            "a",
            {"overrides": {"budget.images": 0}},
            "budget.images = 0: no image could be generated; must be 1 or",
        ),
        (
            "a",
            {"overrides": {"budget.seconds": 0}},
            "budget.seconds = 0: no image could be generated; must be more",
        ),
        ("a", {"overrides": {"library.folder": "plugin"}}, "library.folder = 'plugin': no images in it"),
        ("a", {"out": "/dev/null"}, "it is a file; must be a folder"),
        ("a", {"out": "/proc/x"}, "out '/proc/x': Cannot write .* Choose a folder that can be written to"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    place: Path, prompt: str, arguments: dict[str, Any], words: str
) -> None:
    interfaces: list[Callable[..., object]] = [estimate, draw]
    for call in interfaces:
        with pytest.raises(BadInput, match=words):
            call(prompt, **arguments)
    assert not (place / "home").exists()


def test_a_prompt_of_every_script_and_of_full_length(place: Path) -> None:
    prompt = ("Zwei Dinge, 二つの物, شيئان, две вещи 🎨 <b>&amp;</b> " * 60)[:2000]
    result = draw(prompt)
    assert json.loads(chunks(result)["pleinair"])["prompt"] == prompt
    assert result.picture is not None and result.picture.name.isascii()


def test_a_refusal_of_the_model_is_its_own_ending(place: Path) -> None:
    result = draw(PROMPT, overrides={"mllm.says": "I would rather not."})
    assert (result.outcome.ending, result.outcome.reason) == ("refused", "I would rather not.")
    assert result.picture is not None and result.picture.exists()


def test_a_bug_becomes_a_failure_with_a_traceback_and_can_be_resumed(place: Path) -> None:
    result = draw(PROMPT, seed=7, overrides={"generator.fault": "boom"})
    assert (result.outcome.ending, result.outcome.reason) == ("failed", "RuntimeError: boom")
    assert "boom" in (home().run(result.run_id) / "traceback.txt").read_text(encoding="utf-8")
    assert result.picture is None and result.sidecar.exists()
    assert resume(result.run_id).outcome.ending == "failed"


def test_one_key_is_one_run(place: Path) -> None:
    first = draw(PROMPT, seed=7, idempotency_key="k")
    pictures = effects(place, "picture")
    assert draw(PROMPT, seed=7, idempotency_key="k") == first
    assert effects(place, "picture") == pictures


def test_one_key_for_two_requests_is_refused(place: Path) -> None:
    draw(PROMPT, seed=7, idempotency_key="k")
    with pytest.raises(BadInput, match="whose request is another one .seed"):
        draw(PROMPT, seed=8, idempotency_key="k")


def test_sixteen_clients_with_one_key_share_one_run(place: Path) -> None:
    def request(_: int) -> str:
        try:
            return draw(PROMPT, seed=7, idempotency_key="k").run_id
        except Busy:
            return "busy"

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(request, range(16)))
    assert len(answers - {"busy"}) == 1
    assert effects(place, "picture") == 2
    assert len(run_table().newest(99)) == 1


def test_a_second_process_on_a_run_is_refused(place: Path) -> None:
    run, begun, refused = submit(PROMPT), threading.Event(), threading.Event()

    def on_event(event: Event) -> None:
        begun.set()
        refused.wait(300)

    worker = threading.Thread(target=lambda: finish(run, on_event))
    worker.start()
    assert begun.wait(300)
    code = "import sys; from pleinair.app.api import resume; resume(sys.argv[1])"
    command = [sys.executable, "-c", code, run.id]
    second = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    refused.set()
    worker.join()
    assert f"Busy: run {run.id} is being worked on by process {os.getpid()}" in second.stderr
    assert run_table().get(run.id).status == "accepted"


@pytest.mark.parametrize("count", [2, 9, 20])
def test_a_holder_that_lost_its_lease_commits_nothing(place: Path, count: int) -> None:
    undisturbed, run, events = draw(PROMPT, seed=7), submit(PROMPT, seed=7), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == count:  # as another process does after the lease has expired
            with closing(sqlite3.connect(home().table_file)) as db, db:
                db.execute("UPDATE runs SET fence = fence + 1, lease_until = 0 WHERE id = ?", (run.id,))

    with pytest.raises(LeaseLost):
        finish(run, on_event)
    assert run_table().get(run.id).status == "running"
    after = finish(run)
    assert undisturbed.outcome.best is not None and after.outcome.best is not None
    assert undisturbed.outcome.best.picture == after.outcome.best.picture


@pytest.mark.parametrize("count", [1, 3, 6, 9, 14, 18, 22])
def test_a_run_cancelled_at_any_event_keeps_the_best_image(place: Path, count: int) -> None:
    run, events = submit(PROMPT, seed=7, overrides=NEVER), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            Runs(home().table_file).request_cancel(run.id)

    result = finish(run, on_event)
    assert (result.outcome.ending, result.outcome.reason) == ("cancelled", "you asked it to stop")
    generated = any(step.attempts for step in payloads(events, StepFinished))
    assert result.picture is not None or not generated
    assert events[-1].kind == "ended"
    # the last event includes steps that finished while they were awaited
    assert (result.picture is not None) == bool(payloads(events, Ended)[-1].attempts)


def test_an_image_is_kept_if_its_event_triggers_the_cancellation(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = FencedSaver.put_writes

    def slowly(*arguments: Any) -> None:
        time.sleep(0.2)
        save(*arguments)

    monkeypatch.setattr(FencedSaver, "put_writes", slowly)
    run = submit(PROMPT, seed=7, overrides=NEVER)

    def on_event(event: Event) -> None:
        if isinstance(event.data, StepFinished) and event.data.attempts:
            run_table().request_cancel(run.id)

    result = finish(run, on_event)
    assert result.outcome.ending == "cancelled" and result.picture is not None


def test_the_usage_of_an_mllm_call_is_kept_if_the_run_is_cancelled_during_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, called, note = submit(PROMPT, seed=7), threading.Event(), quick.note

    def slowly(line: str) -> None:
        note(line)
        if line == "question":
            called.set()
            time.sleep(0.2)

    def on_event(event: Event) -> None:
        if event.kind == "progress":  # of the draft, beside which the prompt is decomposed
            assert called.wait(300)
            run_table().request_cancel(run.id)

    monkeypatch.setattr(quick, "note", slowly)
    result = finish(run, on_event)
    usage = json.loads(result.sidecar.read_text(encoding="utf-8"))["usage"]
    assert result.outcome.ending == "cancelled" and effects(place, "question") == 1
    assert sum(part["mllm_calls"] for part in usage) == 1


def test_a_cancelled_run_does_not_affect_the_next(place: Path) -> None:
    before = draw(PROMPT, seed=7)
    run = submit(PROMPT, seed=7)
    assert cancel(run.id).status == "cancelled"
    after = draw(PROMPT, seed=7)
    assert before.outcome.best is not None and after.outcome.best is not None
    assert before.outcome.best.picture == after.outcome.best.picture


def test_cancelling_a_finished_run_changes_nothing(place: Path) -> None:
    result = draw(PROMPT)
    assert cancel(result.run_id).status == "accepted"


def test_resuming_a_finished_run_only_reads_it(place: Path) -> None:
    result = draw(PROMPT)
    before = effects(place, "")
    assert resume(result.run_id) == result
    assert effects(place, "") == before


def test_a_full_disk_is_a_failure_that_can_be_resumed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("No room left.")

    with monkeypatch.context() as patch:
        patch.setattr("pleinair.app.runs.results.write_whole", full)
        result = draw(PROMPT, seed=7)
    assert result.outcome.ending == "failed"
    assert result.outcome.reason.startswith("No room left. The best image is kept: ")
    pictures = effects(place, "picture")
    result = resume(result.run_id)
    assert result.outcome.ending == "accepted"
    assert effects(place, "picture") == pictures


def test_a_full_disk_during_a_run_loses_no_finished_image(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pleinair.tools.storage.artifacts import ArtifactStore

    put, count = ArtifactStore.put, []

    def filling(self: ArtifactStore, image: Image.Image) -> Any:
        count.append(1)
        if len(count) > 1:
            raise DiskFull("No room left.")
        return put(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "put", filling)
        result = draw(PROMPT, seed=7)
    assert result.outcome.ending == "failed" and result.picture is not None
    assert resume(result.run_id).outcome.ending == "accepted"


def test_the_log_has_every_step_and_no_pixels(place: Path) -> None:
    result = draw(PROMPT, seed=7)
    path = home().events(result.run_id)
    events = read(path)
    assert [event.seq for event in events] == list(range(len(events)))
    assert (events[0].kind, events[-1].kind) == ("started", "ended")
    steps = [event.step for event in events if event.kind == "step_finished"]
    assert (steps[0], set(steps[1:3])) == ("begin", {"decompose", "draft"})
    assert steps[3:] == ["critique", "plan", "retrieve", "select", "generate", "critique", "finish"]
    assert b"base64" not in path.read_bytes()


def test_the_checkpoints_are_small_and_plain(place: Path) -> None:
    result = draw(PROMPT, seed=7, overrides=NEVER | {"budget.attempts": 4})
    from pleinair.app.runs.checkpoints import open_file

    with open_file(home().run(result.run_id) / "checkpoints.sqlite", lambda: None) as saver:
        sizes = [len(row[0]) for row in saver.conn.execute("SELECT checkpoint FROM checkpoints")]
    assert max(sizes) < 2**16
