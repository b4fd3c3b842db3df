"""Fixed cost of a run of the pocket engines: a cold command line, and a warm process.

Cold: `pleinair draw` in a process of its own, against one that only imports the libraries of its engines.
Both alternate, in a home whose library has been indexed. Warm: the later runs of one process, against the
time that the denoiser takes for the same images. The phases are read from the events of a run: of an interval
between two events, the step that works in it, or "between the steps", where checkpoints are written. In
brackets is work within the phases, of which two run beside each other: denoising, the images' files, the log,
and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from pleinair.app.paths import Paths
from pleinair.app.runs.events import Event, EventLog, read
from pleinair.evals.scale.command import write_figures
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import GenerateRequest, Generator, OnStep, PleinairError

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT = "a hoopoe in the snow"
IMPORTS = "import torch; from diffusers import Flux2KleinPipeline; import open_clip, faiss, langgraph"
WARM = "from pleinair.evals.scale.startup import print_warm_runs; print_warm_runs({runs})"
TARGETS = {"cold": 1.3, "warm": 6.0}
UNMEASURED = 2  # first runs of a process: models, caches


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--cold", type=int, default=5, help="cold processes of each kind; 0: none (5)")
    parser.add_argument("--warm", type=int, default=10, help="warm runs; 0: none (10)")


def run(options: argparse.Namespace) -> None:
    """Measure and print both."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PLEINAIR_HOME": f"{folder}/home", "PLEINAIR_PATHS__OUT": f"{folder}/out"}
        _timed(_draw(0), environment)  # indexes the library
        if options.cold:
            figures["cold"] = _cold(options.cold, environment, Paths(Path(folder, "home")))
        if options.warm:
            code = WARM.format(runs=options.warm)
            figures["warm"] = json.loads(_output([sys.executable, "-c", code], environment))
    for name, figure in figures.items():
        _print(name, figure)
    write_figures(options.json, figures)


def _print(name: str, figure: Mapping[str, Any]) -> None:
    best, median = figure["ratio"]["best"], figure["ratio"]["median"]
    sys.stdout.write(
        f"{name}: {best:.2f} × {figure['reference']} (best of {figure['n']}), {median:.2f} × (medians); "
        f"the target is {TARGETS[name]}\n"
    )
    whole, reference = (statistics.median(figure[key]) for key in ("seconds", "reference_seconds"))
    for phase, seconds in figure["phases"].items():
        sys.stdout.write(
            f"  {phase:<24} {1000 * seconds:8.1f} ms (median), {100 * seconds / whole:5.1f} % of the run, "
            f"{seconds / reference:.3f} × {figure['reference']}\n"
        )


def _ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    return {
        "best": min(above) / min(below),
        "median": statistics.median(above) / statistics.median(below),
    }


def _cold(count: int, environment: Mapping[str, str], places: Paths) -> dict[str, Any]:
    """Return the figures of cold processes, which alternate with the imports."""
    import_times, draws, phases = [], [], []
    for seed in range(1, count + 1):
        import_times.append(_timed([sys.executable, "-c", IMPORTS], environment))
        before, started = _run_ids(places), time.time()
        draws.append(_timed(_draw(seed), environment))
        (run_id,) = _run_ids(places) - before
        phases.append(_phases(started, read(places.events(run_id)), time.time()))
    wall, cpu = zip(*draws, strict=True), zip(*import_times, strict=True)
    (draw_wall, draw_cpu), (import_wall, import_cpu) = wall, cpu
    return {
        "reference": "the imports",
        "n": count,
        "ratio": _ratios(draw_wall, import_wall),
        "cpu_ratio": _ratios(draw_cpu, import_cpu),
        "seconds": draw_wall,
        "reference_seconds": import_wall,
        "phases": _medians(phases),
    }


def _draw(seed: int) -> list[str]:
    return [sys.executable, "-m", "pleinair.app.cli.main", "draw", PROMPT, "--seed", str(seed), "--json"]


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Return the seconds of a command: on the clock, and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    _output(command, environment)
    seconds, after = perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise PleinairError(f"{' '.join(command)} exited with {result.returncode}: {result.stderr[-2000:]}")
    return result.stdout


def _run_ids(places: Paths) -> set[str]:
    return {folder.name for folder in (places.home / "runs").iterdir()}


def _phases(started: float, events: Sequence[Event], ended: float) -> dict[str, float]:
    """Return the seconds of each phase; the draft is generated before the first attempt is numbered."""
    phases = {"before the graph": events[0].at - started}
    for before, event in zip(events, events[1:], strict=False):
        name = _phase(before, event)
        phases[name] = phases.get(name, 0.0) + event.at - before.at
    return {**phases, "after the end": ended - events[-1].at}


def _phase(before: Event, event: Event) -> str:
    if event.kind == "ended":
        return "result"
    if before.kind == "started":
        return "before the first step"
    if event.kind == "step_started":
        return "between the steps"
    return "draft" if (event.step, event.attempt) == ("generate", 0) else event.step


def _medians(phases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in phases for name in each)
    return {name: statistics.median(each.get(name, 0.0) for each in phases) for name in names}


class TimedGenerator:
    """Generator that adds up the time of its denoising steps, without that of the callback between them.

    The time of the first step of an image, which the pipeline does not bound, is the mean of its others.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator, self.capabilities = generator, generator.capabilities
        self.steps = self.images = 0.0

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Generate an image as the generator does."""
        returned, steps, started = 0.0, list[float](), perf_counter()

        def timed(done: int, total: int) -> None:
            nonlocal returned
            if done > 1:
                steps.append(perf_counter() - returned)
            on_step(done, total)
            returned = perf_counter()

        timed.check = getattr(on_step, "check", lambda: None)  # type: ignore[attr-defined]
        image = self._generator.generate(request, images, timed)
        self.images += perf_counter() - started
        self.steps += sum(steps) * (len(steps) + 1) / len(steps)
        return image


@contextmanager
def _timed_writes() -> Iterator[dict[str, float]]:
    """Add up the seconds in what a run saves, for the block."""
    from pleinair.app.runs.checkpoints import FencedSaver

    seconds: dict[str, float] = {}
    parts: Sequence[tuple[str, Any, str]] = (
        ("(images' files)", ArtifactStore, "put"),
        ("(event log)", EventLog, "write"),
        ("(checkpoints)", FencedSaver, "put"),
        ("(checkpoints)", FencedSaver, "put_writes"),
    )
    with ExitStack() as patches:
        for name, owner, method in parts:
            seconds[name] = 0.0
            patches.enter_context(patch.object(owner, method, _adding(getattr(owner, method), seconds, name)))
        yield seconds


def _adding(call: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    def timed(*args: Any, **options: Any) -> Any:
        started = perf_counter()
        try:
            return call(*args, **options)
        finally:
            seconds[name] += perf_counter() - started

    return timed


def print_warm_runs(count: int) -> None:
    """Print the figures of warm runs in this process as JSON."""
    sys.stdout.write(json.dumps(_warm(count)))


def _warm(count: int) -> dict[str, Any]:
    from pleinair.app.api import draw
    from pleinair.app.engines import build_generator
    from pleinair.app.settings import load

    generator = TimedGenerator(build_generator(load(None, {})))
    whole, steps, phases = [], [], []
    for seed in range(count + UNMEASURED):
        generator.steps, events = 0.0, list[Event]()
        with _timed_writes() as writes:
            started, on_clock = perf_counter(), time.time()
            draw(PROMPT, seed=seed, generator=generator, on_event=events.append)
            whole.append(perf_counter() - started)
        steps.append(generator.steps)
        phases.append(
            _phases(on_clock, events, time.time()) | {"(denoising steps)": generator.steps} | writes
        )
    whole, steps, phases = whole[UNMEASURED:], steps[UNMEASURED:], phases[UNMEASURED:]
    return {
        "reference": "the denoising steps",
        "n": count,
        "ratio": _ratios(whole, steps),
        "seconds": whole,
        "reference_seconds": steps,
        "phases": _medians(phases),
    }
