"""Images of several seeds in one forward pass are those that are made one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_pipelines as tiny
from support.generator_requests import draw, loaded_pipeline, make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.types import BatchGenerator, ModelFault

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SEEDS = (5, 6)
TOLERANCE = 1  # of 255: a matrix product of another shape may round otherwise
CLASSES = (
    "StableDiffusionXLPipeline",
    "FluxPipeline",
    "Flux2KleinPipeline",
    "QwenImagePipeline",
    "ZImagePipeline",
)


def pixels(images: list[Any]) -> list[np.ndarray]:
    return [np.asarray(image).astype(int) for image in images]


@pytest.mark.parametrize("pipeline", CLASSES)
def test_a_batch_has_the_images_of_its_seeds(pipeline: str, tmp_path: Path) -> None:
    make, options = tiny.TEXT_ONLY[pipeline]
    folder = str(tiny.save(make, tmp_path))
    engine = TextOnly(folder, pipeline=pipeline, options=options, batch=3, height=32, width=32)
    assert isinstance(engine, BatchGenerator) and engine.capabilities.batch == 3
    calls = list[tuple[int, int]]()
    images = pixels(engine.generate_batch(make_request(seed=4), SEEDS, lambda *step: calls.append(step)))
    alone = [draw(engine, seed=seed).astype(int) for seed in (4, *SEEDS)]
    assert calls[0] == (0, 2) and len(calls) <= 4  # one pass
    assert len(images) == 3
    for image, single in zip(images, alone, strict=True):
        assert np.abs(image - single).max() <= TOLERANCE
    assert np.abs(alone[0] - alone[1]).max() > 8 * TOLERANCE


@pytest.fixture
def klein(tmp_path: Path) -> Callable[..., InContext]:
    folder = str(tiny.save(tiny.klein, tmp_path))
    text: dict[str, Any] = {"max_sequence_length": 24, "text_encoder_out_layers": (0, 1)}
    return lambda **settings: InContext(folder, height=32, width=32, batch=3, **text, **settings)


def test_without_room_the_first_image_is_made_alone(klein: Callable[..., InContext]) -> None:
    engine, passes = klein(), list[int]()
    first = draw(engine, seed=4)

    def fill(_: Any, arguments: Any, options: dict[str, Any]) -> None:
        passes.append(len(options["hidden_states"]))
        if passes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    loaded_pipeline(engine).transformer.register_forward_pre_hook(fill, with_kwargs=True)
    images = engine.generate_batch(make_request(seed=4), SEEDS, no_callback)
    assert [np.array_equal(image, first) for image in pixels(images)] == [True]
    assert passes == [3, 1, 1]
    assert engine.offload_levels == ["whole"]
    engine = klein(memory="vae_tiling")
    assert len(engine.generate_batch(make_request(seed=4), SEEDS, no_callback)) == 1


def test_the_estimate_of_memory_limits_a_batch(klein: Callable[..., InContext]) -> None:
    request, engine = make_request(seed=4), klein(memory_limit=1.0)
    assert len(engine.generate_batch(request, SEEDS, no_callback)) == 3
    estimate = engine._estimate
    assert estimate and estimate.token_bytes
    tokens = 24 + (32 // estimate.unit) ** 2
    engine = klein(memory_limit=estimate.total("whole", round(2.5 * tokens)) / 2**30)
    assert len(engine.generate_batch(request, SEEDS, no_callback)) == 1
    assert len(engine.generate_batch(request, SEEDS[:1], no_callback)) == 2


def test_one_image_that_overflows_does_not_take_the_others_with_it(klein: Callable[..., InContext]) -> None:
    engine = klein()
    first = draw(engine, seed=4)

    def overflow(_: Any, arguments: Any, output: Any) -> Any:
        if len(output[0]) > 1:
            output[0][1].fill_(float("nan"))
        return output

    loaded_pipeline(engine).transformer.register_forward_hook(overflow)
    images = engine.generate_batch(make_request(seed=4), SEEDS, no_callback)
    assert [np.array_equal(image, first) for image in pixels(images)] == [True]
    with pytest.raises(ModelFault, match="takes|overflow"):
        loaded_pipeline(engine).transformer.register_forward_hook(
            lambda *parts: (parts[2][0] * float("nan"),)
        )
        engine.generate_batch(make_request(seed=4), SEEDS, no_callback)
