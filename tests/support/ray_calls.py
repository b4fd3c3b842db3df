"""Programs that call a cluster's replicas, each in a process of its own, which prints what it found as JSON.

    python -m support.ray_calls same|run|removed|images FIRST COUNT

The settings are those of the environment.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from pleinair.app.engines import build_encoder, build_generator
from pleinair.app.settings import load
from pleinair.tools.callbacks import Stop, StopCheck, no_callback
from pleinair.tools.deadline import OutOfTime, deadline
from pleinair.tools.types import (
    BatchGenerator,
    Cancelled,
    GenerateRequest,
    Hit,
    Picture,
    PleinairError,
    Reference,
)

ANSWER = "answer: "  # before the JSON, as Ray may write lines of its own
TEXTS = ("a red car", "a blue bird", "a dog")


def request(seed: int, **changes: Any) -> GenerateRequest:
    """Return a request of 8 steps."""
    values: dict[str, Any] = {"prompt": "a hoopoe", "height": 64, "width": 64, "num_inference_steps": 8}
    return GenerateRequest(**values | {"guidance_scale": 3.0, "seed": seed} | changes)


def with_reference(seed: int) -> tuple[GenerateRequest, Image.Image]:
    """Return a request with one reference, and the image of that."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    hit = Hit(id="a", score=1.0)
    picture = Picture(sha256="0" * 64, width=48, height=48)
    reference = Reference(concept="wren", hit=hit, picture=picture)
    return request(seed, references=(reference,)), Image.fromarray(pixels)


def digest(image: Image.Image) -> str:
    """Return a hash of the pixels."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def same() -> dict[str, Any]:
    """Compare images, vectors, steps and previews with those of the same parts in this process."""
    served = load()
    local = served.model_copy(update={"ray_serve": type(served.ray_serve)()})
    there, here = build_generator(served), build_generator(local)
    far, near = build_encoder(served), build_encoder(local)
    referenced, image = with_reference(3)
    seen = Watcher()
    results: dict[str, Any] = {
        "capabilities": there.capabilities == here.capabilities,
        "image": there.generate(request(1), [], seen).tobytes()
        == here.generate(request(1), [], no_callback).tobytes(),
        "steps": seen.steps,
        "previews": len(seen.previews),
        "reference": there.generate(referenced, [image], no_callback).tobytes()
        == here.generate(referenced, [image], no_callback).tobytes(),
        "levels": list(there.offload_levels) == list(here.offload_levels),  # type: ignore[attr-defined]
        "id": far.id == near.id,
        "texts": np.array_equal(far.encode_text(TEXTS), near.encode_text(TEXTS)),
    }
    assert isinstance(there, BatchGenerator) and isinstance(here, BatchGenerator)
    together = [part.generate_batch(request(5), (6,), no_callback) for part in (there, here)]
    results["batch"] = [digest(image) for image in together[0]] == [digest(image) for image in together[1]]
    images = [with_reference(seed)[1] for seed in range(10)]
    for name, chosen in (("images", images), ("one image", images[:1]), ("no image", [])):
        results[name] = np.array_equal(far.encode_images(chosen), near.encode_images(chosen))
    with ThreadPoolExecutor(8) as pool:  # those that wait together are embedded together
        rows = list(pool.map(lambda number: far.encode_text([f"a dog, number {number}"])[0], range(8)))
    alone = [near.encode_text([f"a dog, number {number}"])[0] for number in range(8)]
    results["together"] = bool(np.allclose(rows, alone, atol=0.01))
    return results | faults()


class Watcher:
    """Step callback that collects steps and previews."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.previews: list[Any] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def show(self, preview: Image.Image) -> None:
        self.previews.append(preview)


def faults() -> dict[str, Any]:
    """Stop an image, let one run out of time, and send calls that no replica may answer."""
    generator, endless = build_generator(load()), request(7, num_inference_steps=1000)
    stop = Stop()
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    errors = {
        "stop": error_of(lambda: generator.generate(endless, [], StopCheck(stop.check))),
        "wrong size": error_of(lambda: generator.generate(request(1, width=4096), [], no_callback)),
    }
    with deadline(0.5):
        errors["late"] = error_of(lambda: generator.generate(endless, [], no_callback))
    started = time.monotonic()
    generator.generate(request(8), [], no_callback)  # a replica that still drew those would keep it waiting
    for name, overrides in (
        ("other arguments", {"generator.reference_size": 16}),
        ("no application", {"ray_serve.generator.app": "nothing"}),
    ):
        other = build_generator(load(overrides=overrides))
        errors[name] = error_of(lambda other=other: other.generate(request(1), [], no_callback))  # type: ignore[misc]
    return {"errors": errors, "next": time.monotonic() - started}


def error_of(call: Callable[[], object]) -> list[str]:
    """Return class and text of the error that a call raises."""
    try:
        call()
    except (Cancelled, OutOfTime, PleinairError) as error:
        return [type(error).__name__, str(error)]
    return ["", ""]


def images(first: int, count: int) -> list[str]:
    """Return the hashes of images of consecutive seeds, all asked for at once."""
    generator = build_generator(load())
    with ThreadPoolExecutor(count) as pool, ready():
        drawn = pool.map(
            lambda seed: generator.generate(request(seed), [], no_callback), range(first, first + count)
        )
        return [*map(digest, drawn)]


def write_line(text: str) -> None:
    """Write a line that the parent reads at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def ready() -> Iterator[None]:
    """Write a line before the block, when calls are about to be sent."""
    write_line("ready")
    yield


def removed() -> list[str]:
    """Return the error of a call to an application that answered before and was removed since."""
    from pleinair.tools.cluster.deployments import remove

    settings = load()
    generator = build_generator(settings)
    generator.generate(request(1), [], no_callback)
    remove(settings.cluster.ray, ["pleinair-generator"], no_callback)
    return error_of(lambda: generator.generate(request(1), [], no_callback))


def run() -> dict[str, Any]:
    """Draw with the default graph; return what must not depend on where the models are."""
    from pleinair.app.api import draw, home
    from pleinair.app.runs.events import read
    from pleinair.app.trace.trace import trace_of

    result = draw("a hoopoe in the snow", seed=11)
    trace = trace_of(read(home().events(result.run_id)))
    assert trace
    return {
        "ending": result.outcome.ending,
        "images": [attempt.picture.sha256 for attempt in trace.attempts.values()],
        "references": [
            [reference.hit.id for reference in attempt.request.references]
            for attempt in trace.attempts.values()
        ],
        "levels": [attempt.offload_levels for attempt in trace.attempts.values()],
    }


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    programs: dict[str, Callable[..., Any]] = {"same": same, "images": images, "run": run, "removed": removed}
    write_line(ANSWER + json.dumps(programs[name](*map(int, numbers))))
