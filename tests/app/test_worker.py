"""Whole runs with the generator in its own process: the same pictures, and a death that a run survives."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
from PIL import Image
from support import faulty_generator as perils

from pleinair.app.api import cancel, draw, finish, submit
from pleinair.app.engines import DEVICE, chosen_generator
from pleinair.app.runs.results import Result
from pleinair.app.settings import load, profiles
from pleinair.tools.types import BadInput, Generator, Outcome
from pleinair.tools.worker.worker import Worker

APART = {"worker.process": True}
HERE = {"gpt_image", "openai", "pocket", "sglang", "vllm_omni"}  # no model of weight on this machine


def pixels(result: Result) -> bytes:
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        return picture.tobytes()


def close(generator: Generator) -> None:
    assert isinstance(generator, Worker)
    generator.close()


def test_a_run_draws_the_same_in_a_process_of_its_own(place: Path) -> None:
    results = [draw("two things", seed=7, overrides=given) for given in ({}, APART)]
    assert [result.outcome.ending for result in results] == ["accepted"] * 2
    assert pixels(results[0]) == pixels(results[1])
    close(chosen_generator(load(overrides=APART)))


def test_a_death_fails_one_run_with_its_reason(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(perils.install(place / "more"))
    given = APART | {"generator.backend": "perils"}
    dead = draw("SIGKILL", overrides=given).outcome
    assert (dead.ending, dead.best) == ("failed", None)
    assert dead.reason.startswith("The process of `perils:1` died while generating: it was ended by SIGKILL")
    assert draw("two things", overrides=given).outcome.ending == "accepted"
    close(chosen_generator(load(overrides=given)))


@pytest.fixture
def perilous(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give settings of a generator that does what the prompt says, and may take a second to stop."""
    monkeypatch.syspath_prepend(perils.install(place / "more"))
    log = {"generator.log": str(place / "log")}
    return APART | {"generator.backend": "perils", "worker.grace": 1.0, "budget.attempts": 1} | log


def cancelled_once(seen: Callable[[], bool], prompt: str, given: dict[str, Any]) -> Outcome:
    """Submit, and ask to stop from outside once something is seen."""
    run = submit(prompt, graph="direct", overrides=given)

    def stop() -> None:
        while not seen():
            sleep(0.05)
        cancel(run.id)

    waiting = Thread(target=stop)
    waiting.start()
    outcome = finish(run).outcome
    waiting.join()
    return outcome


@pytest.mark.parametrize("prompt", ["loads for ever", "hangs"])
def test_a_run_whose_generator_says_nothing_is_cancelled_and_the_next_draws(
    perilous: dict[str, Any], place: Path, prompt: str
) -> None:
    outcome = cancelled_once((place / "log").exists, prompt, perilous)
    assert (outcome.ending, outcome.reason) == ("cancelled", "you asked it to stop")
    assert draw("two things", graph="direct", overrides=perilous).outcome.best
    close(chosen_generator(load(overrides=perilous)))


def test_a_run_whose_generator_starts_for_ever_is_cancelled(perilous: dict[str, Any]) -> None:
    given = perilous | {"generator.fault": "asleep"}
    worker = chosen_generator(load(overrides=given))
    assert isinstance(worker, Worker)
    outcome = cancelled_once(lambda: DEVICE.lock.locked(), "two things", given)
    assert (outcome.ending, worker.pid) == ("cancelled", None)


def test_a_hung_step_is_out_of_time(perilous: dict[str, Any]) -> None:
    outcome = draw("hangs", graph="direct", overrides=perilous | {"budget.seconds": 2.0}).outcome
    assert (outcome.ending, outcome.best) == ("stopped", None)
    close(chosen_generator(load(overrides=perilous)))


def test_two_tables_of_one_program_never_have_two_processes(perilous: dict[str, Any]) -> None:
    tables = [perilous, perilous | {"generator.pause": 0.001}]
    workers = [chosen_generator(load(overrides=given)) for given in tables]
    for turn in (0, 1, 0):
        assert draw("two things", graph="direct", seed=7, overrides=tables[turn]).outcome.best
        alive = [isinstance(worker, Worker) and worker.pid is not None for worker in workers]
        assert alive == [turn == 0, turn == 1]
    for worker in workers:
        close(worker)


def test_an_argument_that_the_engine_has_not_is_refused_before_a_process_starts(place: Path) -> None:
    with pytest.raises(BadInput, match="generator.paws = 4: .* has no such argument; accepted: pause"):
        chosen_generator(load(overrides=APART | {"generator.paws": 4}))


@pytest.mark.parametrize("name", sorted(profiles()))
def test_a_model_of_weight_has_a_process_of_its_own(name: str) -> None:
    assert load(name).worker.process is (name not in HERE)
