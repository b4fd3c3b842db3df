"""Attempts of runs with and without what was encoded before, batches of seeds, and threads of torch.

Everything is a ratio within one process: both sides alternate, and the best and the median times count: CPU
seconds on one thread, which a loaded machine changes little, and for the threads the time that passes.
`pocket` is the shipped generator. `mid` has the same classes with random weights: a denoiser and a text
encoder of about 20 million parameters each, and an autoencoder four times as wide. The attempts are those of
a run: a draft, one reference, two references, and the two again from another noise. Not covered: GPUs and
offloading, where an encoder that is not called is not moved to the device either.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from pleinair.tools.callbacks import no_callback
from pleinair.tools.threads import limited_threads
from pleinair.tools.types import BadInput, GenerateRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from pleinair.tools.diffusion.in_context import InContext

STEPS = 4
SIZE = {"pocket": 96, "mid": 128}  # pixels a side
BATCH = 4
POCKET = "pocket/catalogue/generator"
BUSY = "import time\nend = time.time() + {seconds}\nwhile time.time() < end: pass"
MOST_SECONDS = 600  # of a busy process, which ends by itself

Times = dict[str, list[float]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (5)")
    parser.add_argument("--model", choices=SIZE, help="only this model")
    parser.add_argument("--busy", type=int, default=0, help="processes that load the machine meanwhile (0)")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    from pleinair.evals.scale.command import write_figures

    if options.rounds < 1:
        raise BadInput(f"--rounds {options.rounds}: must be at least 1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # diffusers' progress bars
    figures: dict[str, Any] = {"rounds": options.rounds, "busy": options.busy, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder, _busy(options.busy):
        for name in [options.model] if options.model else SIZE:
            place = POCKET if name == "pocket" else str(_save_mid(Path(folder)))
            with limited_threads(1):
                encodings = _compare_caches(name, place, options.rounds)
                batches = _compare_batches(name, place, options.rounds)
            threads = _compare_threads(name, place, options.rounds)
            figures[name] = {"encodings": encodings, "batches": batches, "threads": threads}
    write_figures(options.json, figures)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep as many processes busy for the block."""
    code = BUSY.format(seconds=MOST_SECONDS)
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _save_mid(folder: Path) -> Path:
    """Save a pipeline of the pocket generator's classes with more and random weights; return its folder."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from pleinair.tools.diffusion.in_context import load
    from pleinair.tools.model_files.folders import locate

    pipeline = load(locate(POCKET), "cpu")
    torch.manual_seed(0)
    text = pipeline.text_encoder.config.to_dict() | {"num_attention_heads": 8, "num_key_value_heads": 8}
    text |= {"hidden_size": 512, "head_dim": 64, "intermediate_size": 1536, "num_hidden_layers": 6}
    text["layer_types"] = ["full_attention"] * 6
    encoder = Qwen3ForCausalLM(Qwen3Config(**text))
    layers = 3  # that the pipeline stacks
    denoiser = type(pipeline.transformer).from_config(
        pipeline.transformer.config,
        num_attention_heads=16,
        num_single_layers=6,
        joint_attention_dim=512 * layers,
    )
    widths = [64, 192, 192]
    wide = {"block_out_channels": widths, "decoder_block_out_channels": [64, 96, 192]}
    autoencoder = type(pipeline.vae).from_config(pipeline.vae.config, **wide)
    parts = pipeline.components | {"text_encoder": encoder, "transformer": denoiser, "vae": autoencoder}
    type(pipeline)(**parts, is_distilled=pipeline.config.is_distilled).save_pretrained(folder)
    return folder


def _engine(name: str, folder: str, **settings: Any) -> InContext:
    from pleinair.app.settings import load
    from pleinair.tools.diffusion.in_context import InContext

    arguments = load("pocket").generator.arguments | {"folder": folder, "num_inference_steps": STEPS}
    return InContext(**arguments | {"height": SIZE[name], "width": SIZE[name]} | settings)


def _request(name: str, seed: int = 0, prompt: str = "a hoopoe in the snow") -> GenerateRequest:
    side = SIZE[name]
    return GenerateRequest(
        prompt=prompt, height=side, width=side, num_inference_steps=STEPS, guidance_scale=3.0, seed=seed
    )


def _references(number: int) -> list[Image]:
    """Return two images, other ones for each number."""
    from PIL import Image

    shapes = Image.linear_gradient("L"), Image.radial_gradient("L")
    colour = (number * 37 % 256, number * 91 % 256, 90)
    black = Image.new("RGB", (256, 256))
    return [Image.composite(Image.new("RGB", (256, 256), colour), black, shape) for shape in shapes]


def _draw_attempts(engine: InContext, name: str, number: int) -> list[bytes]:
    """Draw a draft and three more attempts of run `number`."""
    both = _references(number)
    calls: Sequence[tuple[list[Image], int]] = [([], 0), (both[:1], 0), (both, 0), (both, 1)]
    prompt = f"a hoopoe, number {number}, in the snow"
    return [
        engine.generate(_request(name, seed, prompt), images, no_callback).tobytes() for images, seed in calls
    ]


def _compare_caches(name: str, folder: str, rounds: int) -> dict[str, Any]:
    """Return the figures of a run's attempts with the cache against those without it."""
    engines = {"cached": _engine(name, folder), "plain": _engine(name, folder, encoding_cache=0)}
    for engine in engines.values():
        _draw_attempts(engine, name, 0)
    encodings = engines["cached"].encodings
    encodings.hits = encodings.misses = 0
    images: dict[str, list[list[bytes]]] = {key: [] for key in engines}
    times: Times = {key: [] for key in engines}
    for number in range(1, rounds + 1):
        for key in sorted(engines, reverse=number % 2 == 0):  # each side is first in turn
            engine, started = engines[key], process_time()
            images[key].append(_draw_attempts(engine, name, number))
            times[key].append(process_time() - started)
    if images["cached"] != images["plain"]:
        raise RuntimeError("the images with and without the cache differ")
    counts = {"hits": encodings.hits, "misses": encodings.misses, "bytes": encodings.size}
    figure = _ratio(times, "cached", "plain") | counts
    _print(
        f"{name}: four attempts, encodings cached",
        figure,
        f"{counts['hits']} hits, {counts['misses']} misses",
    )
    return figure


def _compare_batches(name: str, folder: str, rounds: int) -> dict[str, Any]:
    """Return the figures of the images of four seeds in one forward pass against one by one."""
    import numpy as np

    engine, times, difference = _engine(name, folder, batch=BATCH), Times(batch=[], single=[]), 0
    seeds = list(range(1, BATCH))

    def together() -> list[Image]:
        return engine.generate_batch(_request(name), seeds, no_callback)

    def apart() -> list[Image]:
        return [engine.generate(_request(name, seed), (), no_callback) for seed in range(BATCH)]

    together()
    for _ in range(rounds):
        batch, single = _timed(together, times["batch"]), _timed(apart, times["single"])
        pixels = [np.stack([np.asarray(image).astype(int) for image in images]) for images in (batch, single)]
        difference = max(difference, int(np.abs(pixels[0] - pixels[1]).max()))
    figure = _ratio(times, "batch", "single") | {"largest_difference": difference}
    _print(f"{name}: {BATCH} seeds in one pass", figure, f"pixels differ by {difference} of 255 at most")
    return figure


def _timed(call: Callable[[], list[Image]], times: list[float]) -> list[Image]:
    started = process_time()
    result = call()
    times.append(process_time() - started)
    return result


def _compare_threads(name: str, folder: str, rounds: int) -> dict[str, Any]:
    """Return the figures of a denoiser's call on one thread against one on every core."""
    import torch

    from pleinair.tools.diffusion.in_context import load
    from pleinair.tools.model_files.folders import locate

    pipeline, most = load(locate(folder), "cpu"), os.cpu_count() or 1
    parameters = sum(part.numel() for part in pipeline.transformer.parameters())
    before, times = torch.get_num_threads(), Times(one=[], every=[])
    images = dict[str, bytes]()

    def draw() -> bytes:
        request = _request(name)
        output = pipeline(
            prompt=request.prompt, height=request.height, width=request.width, num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(0), max_sequence_length=32,
            text_encoder_out_layers=tuple(range(1, 1 + _layers(pipeline))), output_type="np",
        )  # fmt: skip
        data: bytes = output.images.tobytes()
        return data

    try:
        draw()
        for _ in range(rounds):
            for key, threads in (("one", 1), ("every", most)):
                torch.set_num_threads(threads)
                started = perf_counter()
                images[key] = draw()
                times[key].append(perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    equal = images["one"] == images["every"]
    figure = _ratio(times, "one", "every") | {"threads": most, "parameters": parameters, "equal": equal}
    _print(f"{name}: one thread against {most}", figure, "the same numbers" if equal else "other numbers")
    return figure


def _layers(pipeline: Any) -> int:
    """Return how many hidden states of the text encoder the denoiser takes."""
    count: int = pipeline.transformer.config.joint_attention_dim // pipeline.text_encoder.config.hidden_size
    return count


def _ratio(times: Times, above: str, below: str) -> dict[str, Any]:
    """Return the ratios of two sides, with their medians in seconds."""
    return {
        "best": min(times[above]) / min(times[below]),
        "median": statistics.median(times[above]) / statistics.median(times[below]),
        "seconds": {key: statistics.median(values) for key, values in times.items()},
        "n": len(times[above]),
    }


def _print(title: str, figure: Mapping[str, Any], more: str) -> None:
    ratios = f"{figure['best']:.2f} × (best of {figure['n']}), {figure['median']:.2f} × (medians)"
    sys.stdout.write(f"{title}: {ratios}; {more}\n")
