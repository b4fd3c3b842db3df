"""Images of one request share forward passes, and stay runs of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import tiny_pipelines as tiny
from support.generator_requests import LINEAR, loaded_pipeline, make_reference, make_request

from pleinair.app.api import draw, finish, home, run_table, submit_images
from pleinair.app.engines import build_generator
from pleinair.app.runs.ahead import Ahead, split_runs
from pleinair.app.runs.events import StepFinished, payloads, read
from pleinair.app.runs.results import Result
from pleinair.app.runs.row import Run
from pleinair.app.settings import load
from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.types import Usage

SEED = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tiny.save(tiny.klein, tmp_path_factory.mktemp("klein"))
    text = {"max_sequence_length": 24, "text_encoder_out_layers": [0, 1]}
    size = {"height": 32, "width": 32, "num_inference_steps": 2}
    table = {"backend": "in_context", "folder": str(folder), "batch": 3, **text, **size}
    return {f"generator.{name}": value for name, value in table.items()}


@pytest.fixture
def settings(place: Path, model: dict[str, Any]) -> dict[str, Any]:
    return model


def passes(settings: dict[str, Any], on_first: Callable[[], object] = no_callback) -> list[int]:
    """Return a list to which the sizes of forward passes are added; `on_first` is called before the first."""
    engine, sizes = build_generator(load(overrides=settings)), list[int]()
    assert isinstance(engine, InContext)
    if not engine._pipelines:
        draw("a wren", graph="direct", overrides=settings)

    def count(_: Any, arguments: Any, options: dict[str, Any]) -> None:
        sizes.append(len(options["hidden_states"]))
        if len(sizes) == 1:
            on_first()

    loaded_pipeline(engine).transformer.register_forward_pre_hook(count, with_kwargs=True)
    return sizes


def pixels(result: Result) -> np.ndarray:
    assert result.picture
    with Image.open(result.picture) as image:
        return np.asarray(image).astype(int)


def usage(result: Result) -> Usage:
    events = payloads(read(home().events(result.run_id)), StepFinished)
    return Usage.total([part for event in events for part in event.usage])


def test_four_images_take_two_passes_and_are_four_runs(settings: dict[str, Any]) -> None:
    sizes = passes(settings)
    results = draw("a finch", graph="direct", seed=SEED, num_images=4, overrides=settings)
    assert sizes == [3, 3, 1, 1]  # two steps each
    assert [result.outcome.ending for result in results] == ["unchecked"] * 4
    assert [usage(result).images for result in results] == [1] * 4
    alone = [draw("a finch", graph="direct", seed=SEED + number, overrides=settings) for number in range(4)]
    differences = [
        np.abs(pixels(result) - pixels(single)).max() for result, single in zip(results, alone, strict=True)
    ]
    assert max(differences) <= 1  # of 255: another shape of a matrix product rounds otherwise
    assert np.abs(pixels(results[0]) - pixels(results[1])).max() > 8


def test_a_run_whose_image_was_lost_in_a_crash_draws_it_again(settings: dict[str, Any]) -> None:
    sizes = passes(settings)
    first, second, third = submit_images(
        "a finch", graph="direct", seed=SEED, num_images=3, overrides=settings
    )
    ahead = Ahead([first, second, third])
    finish(first, ahead=ahead)
    assert sizes == [3, 3]
    results = [finish(run_table().get(run.id), ahead=Ahead([run])) for run in (second, third)]
    assert sizes == [3, 3, 1, 1, 1, 1]
    assert not np.array_equal(pixels(results[0]), pixels(results[1]))
    assert finish(run_table().get(second.id), ahead=ahead).outcome == results[0].outcome
    assert len(sizes) == 6


@pytest.mark.parametrize(("changes", "first"), [({"budget.seconds": 60.0}, 1), ({"generator.batch": 2}, 2)])
def test_how_many_images_a_pass_makes(settings: dict[str, Any], changes: dict[str, Any], first: int) -> None:
    sizes = passes(settings | changes)
    draw("a finch", graph="direct", seed=SEED, num_images=3, overrides=settings | changes)
    assert sizes[0] == first and sum(sizes) == 3 * 2


def test_a_cancelled_run_leaves_the_later_ones_their_images(settings: dict[str, Any]) -> None:
    runs: list[Run] = []
    sizes = passes(settings, lambda: run_table().request_cancel(runs[0].id))
    runs += submit_images("a finch", graph="direct", seed=SEED, num_images=3, overrides=settings)
    ahead = Ahead(runs)
    endings = [finish(run, ahead=ahead).outcome.ending for run in runs]
    assert endings == ["cancelled", "unchecked", "unchecked"]
    assert sizes[0] == 3 and sizes[-1] == 2


def test_only_the_first_image_of_a_run_is_made_with_those_of_later_runs(settings: dict[str, Any]) -> None:
    runs = submit_images("a finch", graph="direct", seed=SEED, num_images=3, overrides=settings)
    (other,) = submit_images("a wren", graph="direct", seed=SEED + 9, overrides=settings)
    ahead, request = Ahead([*runs, other]), make_request(seed=SEED)
    assert ahead.later_seeds(make_request(seed=SEED, references=(make_reference(),)), 9) == []
    assert ahead.later_seeds(request.model_copy(update={"seed": SEED + 1}), 9) == [SEED + 2]
    ahead = Ahead([*runs, other])
    assert ahead.later_seeds(request, 1) == [SEED + 1]
    assert ahead.later_seeds(request.model_copy(update={"num_inference_steps": 4}), 9) == []
    assert ahead.later_seeds(make_request(seed=SEED + 9), 9) == []  # of another request
    ahead.add(request, [SEED + 1, SEED + 2], [LINEAR])
    second = request.model_copy(update={"seed": SEED + 1})
    assert ahead.take(second) is LINEAR
    assert ahead.take(second) is None
    assert ahead.later_seeds(second, 9) == []


def test_runs_are_split_among_devices() -> None:
    runs: list[Any] = [0, 1, 2, 3, 4]
    shares: list[Any] = [
        split_runs(runs, 0),
        split_runs(runs, 1),
        split_runs(runs, 2),
        split_runs(runs, 2, batch=2),
        split_runs(runs, 2, batch=8),
        split_runs(runs[:2], 8, batch=4),
    ]
    pairs, halves = [[0, 1], [2, 3], [4]], [[0, 1, 2], [3, 4]]
    assert shares == [[runs], [runs], [[run] for run in runs], pairs, halves, [[0], [1]]]
