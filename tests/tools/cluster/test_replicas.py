"""What a replica answers, without Ray around it: the pocket models behind the calls of `RayPart`."""

import asyncio
from typing import Any

import numpy as np
import pytest

from pleinair.app.settings import load
from pleinair.tools import registry
from pleinair.tools.callbacks import no_callback
from pleinair.tools.cluster.ray_serve import Part
from pleinair.tools.cluster.replicas import Replica
from pleinair.tools.types import BadInput, GenerateRequest
from pleinair.tools.worker.process import unpack

POCKET = load("pocket")
GENERATOR = Part.of("generator", POCKET.generator.backend, POCKET.generator.arguments)
ENCODER = Part.of("encoder", POCKET.encoder.backend, POCKET.encoder.arguments)
TEXTS = [["a red car"], [], ["a dog", "a blue bird"], ["a hoopoe"]]


@pytest.fixture(scope="module")
def generator() -> Replica:
    return Replica(GENERATOR)


@pytest.fixture(scope="module")
def encoder() -> Replica:
    return Replica(ENCODER)


def request(steps: int) -> GenerateRequest:
    return GenerateRequest(
        prompt="a hoopoe", height=64, width=64, num_inference_steps=steps, guidance_scale=3, seed=1
    )


def messages(replica: Replica, part: Part, method: str, *values: Any) -> list[tuple[str, Any]]:
    async def collect() -> list[tuple[str, Any]]:
        return [message async for message in replica.call(part, method, *values)]

    return asyncio.run(collect())


def test_steps_come_before_the_image_of_the_same_generator(generator: Replica) -> None:
    *steps, (kind, (images, levels)) = messages(generator, GENERATOR, "generate", request(2), [], False, ())
    assert steps == [("step", (done, 2)) for done in range(3)]
    assert (kind, levels) == ("answer", ("whole",))
    part = registry.resolve("generator", "in_context")(**POCKET.generator.arguments)
    assert unpack(images[0]).tobytes() == part.generate(request(2), [], no_callback).tobytes()


def test_a_caller_that_leaves_ends_the_image_at_its_next_step(generator: Replica) -> None:
    async def leave() -> None:
        call = generator.call(GENERATOR, "generate", request(1000), [], False, ())
        assert (await anext(call))[0] == "step"
        await call.aclose()
        # the only thread of the replica is free again long before the thousandth step
        await asyncio.wait_for(anext(generator.call(GENERATOR, "facts")), 20)

    asyncio.run(leave())


def test_errors_of_the_part_are_the_last_message(generator: Replica) -> None:
    wide = request(2).model_copy(update={"width": 8192})
    ((kind, error),) = messages(generator, GENERATOR, "generate", wide, [], False, ())
    assert kind == "error" and isinstance(error, BadInput) and "8192 × 64" in str(error)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (GENERATOR._replace(version="0.0.1"), r"pleinair \S+, this process has 0\.0\.1"),
        (GENERATOR._replace(backend="text_only"), "'in_context', the settings have 'text_only'"),
        (GENERATOR._replace(arguments='{"folder": "mine"}'), "slots = 3, the settings have None"),
    ],
)
def test_a_call_for_something_else_is_refused(generator: Replica, other: Part, difference: str) -> None:
    ((kind, error),) = messages(generator, other, "facts")
    assert kind == "error"
    with pytest.raises(BadInput, match=difference):
        raise error


def test_calls_that_are_embedded_together_get_their_own_rows(encoder: Replica) -> None:
    calls = [("encode_text", texts) for texts in TEXTS]
    rows = asyncio.run(encoder._encode_together(calls))
    part = registry.resolve("encoder", "open_clip")(**POCKET.encoder.arguments)
    assert [len(part) for part in rows] == [len(texts) for texts in TEXTS]
    expected = part.encode_text([text for texts in TEXTS for text in texts])
    assert np.array_equal(np.concatenate(rows), expected)
