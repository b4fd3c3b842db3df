"""Several devices: a worker process on each, as many runs at once, and nothing is lost or drawn twice.

Both devices are the CPU, in two real processes with a tiny pipeline.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import tiny_pipelines as tiny
from typer.testing import CliRunner, Result

from pleinair.app.api import draw, enqueue, home, resume, run_table
from pleinair.app.batch.outcomes import OUTCOMES
from pleinair.app.cli.main import app
from pleinair.app.engines import build_generator, on_device
from pleinair.app.runs.events import Ended, Event, EventLog, Payload, Progress, StepFinished, payloads, read
from pleinair.app.runs.owner import Owner
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.app.runs.worker import runs_at_once, work
from pleinair.app.settings import load
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Outcome
from pleinair.tools.worker.worker import Worker

DEVICES = ("cpu:0", "cpu:1")
STEPS = 6
WAIT = 300  # seconds until a test fails in which something waits for ever


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return settings of a tiny generator on two devices; its two processes serve all tests of this file."""
    folder = tiny.save(tiny.klein, tmp_path_factory.mktemp("klein"))
    text = {"max_sequence_length": 24, "text_encoder_out_layers": [0, 1]}
    size = {"height": 32, "width": 32, "num_inference_steps": STEPS}
    table = {"backend": "in_context", "folder": str(folder), "devices": ",".join(DEVICES), **text, **size}
    return {f"generator.{name}": value for name, value in table.items()}


def worker_on(model: dict[str, Any], device: str) -> Worker[Any]:
    generator = build_generator(on_device(load(overrides=model), device))
    assert isinstance(generator, Worker)
    return generator


@pytest.fixture
def settings(place: Path, model: dict[str, Any]) -> dict[str, Any]:
    return model


def queued(settings: dict[str, Any], *clients: str) -> list[Run]:
    """Queue a run for each client, in this order, all with the same seed."""
    return [
        enqueue("a finch", client=client, graph="direct", seed=7, overrides=settings)[0] for client in clients
    ]


def pixels(run: Run) -> bytes:
    (step,) = [step for step in payloads(read(home().events(run.id)), StepFinished) if step.attempts]
    store = ArtifactStore(home().pictures(run.id))
    return store.open(step.attempts[0].picture).tobytes()


def steps_of(run_id: str) -> list[Event]:
    """Return the events of a run's diffusion steps, without the one that says that the model is loaded."""
    events = read(home().events(run_id))
    return [event for event in events if isinstance(event.data, Progress) and event.data.done]


class Meeting(Runs):
    """Run table, and callback of a worker, by which the first two images wait for each other at a step."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        super().__init__(home().table_file)
        self._barrier, self._own = threading.Barrier(2, then), threading.local()
        self.first: list[str] = []  # runs that were being drawn when both had met

    def claim(self, run_id: str, owner: Owner, *, reopen: bool = False) -> int:
        """Claim a run as that of this thread."""
        self._own.run = run_id
        return super().claim(run_id, owner, reopen=reopen)

    def __call__(self) -> None:
        run: str | None = getattr(self._own, "run", None)
        if run and len(self.first) < 2 and run not in self.first and steps_of(run):
            self.first.append(run)
            self._barrier.wait(WAIT)


def work_off(meeting: Meeting) -> None:
    work(meeting, home(), threading.Event(), 0.3, tell=meeting, at_once=2)


def require_one_image_each(runs: list[Run]) -> None:
    """Check that every run has one attempt and one end, and that all have the same pixels."""
    for run in runs:
        events = read(home().events(run.id))
        attempts = [attempt for step in payloads(events, StepFinished) for attempt in step.attempts]
        assert len(attempts) == len(payloads(events, Ended)) == 1
        assert run_table().get(run.id).status == "unchecked"
    assert len({pixels(run) for run in runs}) == 1


def test_two_runs_are_drawn_at_once_and_clients_take_turns(settings: dict[str, Any]) -> None:
    runs = queued(settings, "a", "a", "a", "b")
    meeting = Meeting()
    work_off(meeting)
    assert set(meeting.first) == {runs[0].id, runs[3].id}
    (begin, end), (other_begin, other_end) = (
        (steps[0].at, steps[-1].at) for steps in (steps_of(runs[0].id), steps_of(runs[3].id))
    )
    assert begin < other_end and other_begin < end
    pids = {worker_on(settings, device).pid for device in DEVICES}
    assert len(pids) == 2 and None not in pids
    require_one_image_each(runs)


def test_a_cancelled_run_frees_its_device(settings: dict[str, Any]) -> None:
    runs = queued(settings, "a", "b", "c")

    def cancel() -> None:
        run_table().request_cancel(runs[0].id)

    work_off(Meeting(cancel))
    assert run_table().get(runs[0].id).status == "cancelled"
    require_one_image_each(runs[1:])


def test_the_images_of_a_request_are_shared_by_the_devices(settings: dict[str, Any]) -> None:
    threads = set[str]()

    def on_event(event: Event) -> None:
        threads.add(threading.current_thread().name)

    results = draw("a finch", graph="direct", seed=7, num_images=3, overrides=settings, on_event=on_event)
    assert [result.outcome.ending for result in results] == ["unchecked"] * 3
    apart = {result.outcome.best.picture.sha256 for result in results if result.outcome.best}
    assert len(apart) == 3 and len(threads) == 2
    alone = draw("a finch", graph="direct", seed=8, overrides=settings | {"generator.devices": ""}).outcome
    assert isinstance(alone, Outcome) and alone.best and results[1].outcome.best
    assert alone.best.picture == results[1].outcome.best.picture


def command(name: str, *arguments: str, settings: dict[str, Any]) -> Result:
    """Execute a command with the settings."""
    options = [text for key, value in settings.items() for text in ("--set", f"{key}={json.dumps(value)}")]
    return CliRunner().invoke(app, [name, *arguments, *options])


def best_of(sidecar: Path) -> str:
    """Return the hash of the image of a run."""
    attempt = json.loads(sidecar.read_text("utf-8"))["attempts"][0]
    sha256: str = attempt["picture"]["sha256"]
    return sha256


def test_draw_shows_its_images_in_order_and_the_files_are_those_of_one_device(
    settings: dict[str, Any],
) -> None:
    options = ("a finch", "--graph", "direct", "--seed", "7", "--num-images", "3")
    result = command("draw", *options, "--out", "both", settings=settings)
    assert result.exit_code == 0, result.output
    alone = command("draw", *options, "--out", "one", settings=settings | {"generator.devices": ""})
    assert alone.exit_code == 0, alone.output

    sidecars = [[Path(line) for line in text.splitlines()[1::2]] for text in (result.stdout, alone.stdout)]
    assert len(sidecars[0]) == 3
    assert [best_of(path) for path in sidecars[0]] == [best_of(path) for path in sidecars[1]]

    def blocks(text: str) -> list[str]:  # without the runs' ids and seconds
        return re.findall(r"seed \d+|^draft|^first image|^unchecked", text, re.MULTILINE)

    assert blocks(result.stderr) == blocks(alone.stderr) != []


@pytest.fixture
def interrupt(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets Ctrl-C be pressed so many times while two runs wait at a diffusion step."""
    for device in DEVICES:
        worker_on(settings, device).greet()  # the processes have started before
    write, first = EventLog.write, list[EventLog]()

    def interrupt(times: int) -> None:
        def press() -> None:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.02)

        barrier = threading.Barrier(2, press)

        def meet(log: EventLog, payload: Payload, step: str = "", attempt: int = 0) -> None:
            write(log, payload, step, attempt)
            if isinstance(payload, Progress) and payload.done and len(first) < 2 and log not in first:
                first.append(log)
                barrier.wait(WAIT)

        monkeypatch.setattr(EventLog, "write", meet)

    return interrupt


SLOW = ("draw", "a finch", "--graph", "direct", "--num-images", "3", "--num-inference-steps", "400")


def test_ctrl_c_ends_the_runs_at_work_and_those_that_wait(
    settings: dict[str, Any], interrupt: Callable[[int], None]
) -> None:
    interrupt(1)
    result = command(*SLOW, settings=settings)
    assert result.exit_code == 130
    assert [run.status for run in run_table().newest(3)] == ["cancelled"] * 3
    assert result.stderr.count("cancelled: you asked it to stop") == 3


def test_a_second_ctrl_c_leaves_runs_that_go_on(
    settings: dict[str, Any], interrupt: Callable[[int], None]
) -> None:
    interrupt(2)
    result = command(*SLOW, settings=settings)
    assert result.exit_code == 130
    assert "pleinair: stopped at once" in result.stderr
    left = [run for run in run_table().newest(3) if run.status != "cancelled"]
    assert {run.status for run in left} == {"queued"}  # not "running": they are released
    begun = [run for run in left if steps_of(run.id)]
    assert [run for run in begun if f"`pleinair runs resume {run.id}`" in result.stderr] == begun
    assert resume(left[0].id).outcome.ending == "unchecked"


def test_a_batch_has_a_run_on_each_device_and_the_outcomes_of_one(
    settings: dict[str, Any], interrupt: Callable[[int], None]
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a finch", "seed": 1, "num_images": 2, "num_inference_steps": 200},
        {"prompt": "a wren", "num_inference_steps": 200},
        {"prompt": "an owl"},
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row | {"graph": "direct"}) for row in rows), "utf-8")
    interrupt(1)
    result = command("batch", "rows.jsonl", "--out", "both", settings=settings)
    assert result.exit_code == 130, result.output
    assert "0 of 4 images done" in result.stderr
    assert len(run_table().newest(9)) == 2

    outcomes = []
    for out, table in (("both", settings), ("one", settings | {"generator.devices": ""})):
        result = command("batch", "rows.jsonl", "--out", out, settings=table)
        assert result.exit_code == 0, result.output
        outcomes.append([json.loads(line) for line in (Path(out) / OUTCOMES).read_text("utf-8").splitlines()])
        assert "4 of 4 images done: 4 unchecked" in result.stderr
        assert all(Path(entry["picture"]).is_file() for entry in outcomes[-1])
    for name in ("line", "image", "seed"):
        assert [entry[name] for entry in outcomes[0]] == [entry[name] for entry in outcomes[1]]
    drawn = [[entry["attempts"][0]["image"]["sha256"] for entry in entries] for entries in outcomes]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 4


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("cuda", "'cuda' is no device; accepted: 'all', or names such as 'cuda:0,cuda:1'"),
        ("cpu:0,cpu:0", "a device is listed twice"),
        ("all", "no CUDA device on this machine"),
    ],
)
def test_unusable_devices_are_refused_before_anything_is_written(
    settings: dict[str, Any], devices: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(BadInput, match=message):
        enqueue("a finch", client="a", overrides=settings | {"generator.devices": devices})
    assert not run_table().newest(1)


def test_a_worker_executes_as_many_runs_at_once_as_there_are_devices(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs_at_once() == 1
    monkeypatch.setenv("PLEINAIR_GENERATOR__DEVICES", "cpu:0,cpu:1,cpu:2")
    assert runs_at_once() == 3


def test_a_killed_process_leaves_its_run_to_the_other_device(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    # so many steps that the image is in progress while its first one is logged
    runs = queued(settings | {"image.num_inference_steps": 100}, "a", "b")
    workers = {device: worker_on(settings, device) for device in DEVICES}
    killed = list[str]()

    def kill() -> None:
        device, pid = next((name, worker.pid) for name, worker in workers.items() if worker._process.busy)  # type: ignore[union-attr]
        assert pid
        killed.append(device)
        os.kill(pid, signal.SIGKILL)

    work_off(Meeting(kill))
    require_one_image_each(runs)
    (other,) = set(DEVICES) - set(killed)
    assert f"goes on with {other}: The process of" in caplog.text
    assert "died while generating: it was ended by SIGKILL" in caplog.text
    for worker in workers.values():
        worker.close()
