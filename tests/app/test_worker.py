"""Runs with the generator in its own process: the same images, and a crash fails one run only."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
from PIL import Image
from support import faulty_encoder, faulty_generator
from support.worker_process import is_running

from pleinair.app.api import cancel, draw, finish, submit
from pleinair.app.engines import build_encoder, build_generator, device_lock
from pleinair.app.runs.results import Result
from pleinair.app.settings import load, profiles
from pleinair.tools.types import BadInput, Generator, Outcome
from pleinair.tools.worker.worker import Worker

OWN_PROCESS = {"worker.process": True}
IN_PROCESS = {"gpt_image", "openai", "pocket", "sglang", "vllm_omni"}  # no large model on this machine


def pixels(result: Result) -> bytes:
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        return picture.tobytes()


def close(generator: Generator) -> None:
    assert isinstance(generator, Worker)
    generator.close()


def test_a_run_generates_the_same_in_its_own_process(place: Path) -> None:
    both = OWN_PROCESS | {"worker.encoder": True, "encoder.salt": "apart"}
    for graph in ("pleinair", "crossmodal"):
        results = [
            draw("two things", graph=graph, seed=7, overrides=settings)
            for settings in ({"encoder.salt": "apart"}, both)
        ]
        assert results[0].outcome.ending == results[1].outcome.ending
        assert pixels(results[0]) == pixels(results[1])
    for part in (build_generator(load(overrides=both)), build_encoder(load(overrides=both))):
        assert isinstance(part, Worker) and part.pid is not None
        part.close()


def test_a_crash_fails_one_run_with_its_reason(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(faulty_generator.install(place / "more"))
    settings = OWN_PROCESS | {"generator.backend": "faulty"}
    crashed = draw("SIGKILL", overrides=settings).outcome
    assert (crashed.ending, crashed.best) == ("failed", None)
    reason = "The process of `faulty:1` died while generating: it was ended by SIGKILL"
    assert crashed.reason.startswith(reason)
    assert draw("two things", overrides=settings).outcome.ending == "accepted"
    close(build_generator(load(overrides=settings)))


@pytest.fixture
def faulty(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a generator that does what the prompt says, and may take a second to stop."""
    monkeypatch.syspath_prepend(faulty_generator.install(place / "more"))
    log = {"generator.log": str(place / "log")}
    return OWN_PROCESS | {"generator.backend": "faulty", "worker.grace": 1.0, "budget.attempts": 1} | log


def cancel_when(started: Callable[[], bool], prompt: str, settings: dict[str, Any]) -> Outcome:
    """Submit a run, and cancel it from another thread when it has started."""
    run = submit(prompt, graph="direct", overrides=settings)

    def stop() -> None:
        while not started():
            sleep(0.05)
        cancel(run.id)

    thread = Thread(target=stop)
    thread.start()
    outcome = finish(run).outcome
    thread.join()
    return outcome


@pytest.mark.parametrize("prompt", ["loads for ever", "hangs"])
def test_a_run_with_a_silent_generator_is_cancelled(faulty: dict[str, Any], place: Path, prompt: str) -> None:
    outcome = cancel_when((place / "log").exists, prompt, faulty)
    assert (outcome.ending, outcome.reason) == ("cancelled", "you asked it to stop")
    assert draw("two things", graph="direct", overrides=faulty).outcome.best
    close(build_generator(load(overrides=faulty)))


def test_a_run_whose_generator_hangs_at_the_start_is_cancelled(faulty: dict[str, Any]) -> None:
    settings = faulty | {"generator.fault": "asleep"}
    worker = build_generator(load(overrides=settings))
    assert isinstance(worker, Worker)
    outcome = cancel_when(lambda: device_lock("auto").lock.locked(), "two things", settings)
    assert (outcome.ending, worker.pid) == ("cancelled", None)


def test_a_hung_step_is_out_of_time(faulty: dict[str, Any]) -> None:
    outcome = draw("hangs", graph="direct", overrides=faulty | {"budget.seconds": 2.0}).outcome
    assert (outcome.ending, outcome.best) == ("stopped", None)
    close(build_generator(load(overrides=faulty)))


def test_two_generators_never_have_two_processes(faulty: dict[str, Any]) -> None:
    tables = [faulty, faulty | {"generator.pause": 0.001}]
    workers = [build_generator(load(overrides=table)) for table in tables]
    for turn in (0, 1, 0):
        assert draw("two things", graph="direct", seed=7, overrides=tables[turn]).outcome.best
        alive = [isinstance(worker, Worker) and worker.pid is not None for worker in workers]
        assert alive == [turn == 0, turn == 1]
    for worker in workers:
        close(worker)


def test_an_unknown_argument_is_refused_before_a_process_starts(place: Path) -> None:
    with pytest.raises(BadInput, match="generator.paws = 4: .* has no such argument; accepted: pause"):
        build_generator(load(overrides=OWN_PROCESS | {"generator.paws": 4}))


@pytest.mark.parametrize("name", sorted(profiles()))
def test_a_large_model_has_its_own_process(name: str) -> None:
    settings = load(name)
    assert settings.worker.process is (name not in IN_PROCESS)
    assert settings.worker.encoder is (not settings.encoder.arguments["model"].startswith("local-dir:"))


def test_an_encoder_that_blocks_is_killed_and_started_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(faulty_encoder.install(place / "more"))
    log = place / "log"
    settings = {"worker.encoder": True, "encoder.backend": "faulty", "encoder.log": str(log)}
    settings |= {"encoder.asleep": True, "budget.seconds": 5.0}  # its process starts within them
    outcome = draw("two things", overrides=settings).outcome
    assert (outcome.ending, outcome.limit) == ("stopped", "seconds")
    assert not is_running(int(log.read_text()))
    assert draw("two things", overrides=settings | {"budget.seconds": 60.0}).outcome.ending == "accepted"
    worker = build_encoder(load(overrides=settings))
    assert isinstance(worker, Worker) and worker.pid == int(log.read_text())
    worker.close()
