"""Whole runs with the generator in its own process: the same pictures, and a death that a run survives."""

from pathlib import Path

import perils
import pytest
from PIL import Image

from pleinair.app.draw import draw
from pleinair.app.engines import chosen_generator
from pleinair.app.run.results import Result
from pleinair.app.settings import load, profiles
from pleinair.tools.types import BadInput, Generator
from pleinair.tools.worker import Worker

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
    given = APART | {"generator.engine": "perils"}
    dead = draw("SIGKILL", overrides=given).outcome
    assert (dead.ending, dead.best) == ("failed", None)
    assert dead.reason.startswith("The process of `perils:1` died while drawing: it was ended by SIGKILL")
    assert draw("two things", overrides=given).outcome.ending == "accepted"
    close(chosen_generator(load(overrides=given)))


def test_an_argument_that_the_engine_has_not_is_refused_before_a_process_starts(place: Path) -> None:
    with pytest.raises(BadInput, match="generator.paws = 4: .* has no such argument; wanted: pause"):
        chosen_generator(load(overrides=APART | {"generator.paws": 4}))


@pytest.mark.parametrize("name", sorted(profiles()))
def test_a_model_of_weight_has_a_process_of_its_own(name: str) -> None:
    assert load(name).worker.process is (name not in HERE)
