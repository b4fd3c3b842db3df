"""Cost of a durable step against the steps before it and the size of the images, and of a chat's turn.

Steps: a graph of our state, whose node stores an image and appends an attempt, is run with the saver and the
event log of runs; and again with LangGraph's own SQLite saver, which writes the whole state at each step.
Of large images there are few steps, as it takes long to compress them. Memory: what is added since the first
step, of which both savers have a process.
Turns: a chat of the react graph with a generator and a driving model that cost nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psutil
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from PIL import Image

from pleinair.agent.state import State, changed
from pleinair.app.paths import Paths
from pleinair.app.runs.events import EventLog, StepFinished
from pleinair.app.runs.history import config_of
from pleinair.evals.scale.command import write_figures
from pleinair.evals.scale.library import memory_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt, Capabilities, GenerateRequest, Usage

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver

    from pleinair.tools.types import OnStep

STEPS = (1, 10, 100, 1000)
MOST_STEPS = {64: 1000, 1024: 100}  # by the pixels a side
LAST = 10  # steps that are measured
TARGET = 30_000  # bytes of a step
CONCEPT = "hoopoe"
MEMORY = "from pleinair.evals.scale.steps import print_memory; print_memory({saver!r}, {counts})"
ROWS = (
    "SELECT (SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints)"
    " + (SELECT coalesce(sum(length(value)), 0) FROM writes)"
)
ITEMS = " + (SELECT coalesce(sum(length(hash) + length(value)), 0) FROM items)"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--steps", type=int, default=max(STEPS), help=f"most steps of a run ({max(STEPS)})")
    parser.add_argument("--turns", type=int, default=200, help="turns of the chat; 0: none (200)")


def run(options: argparse.Namespace) -> None:
    """Measure and print both."""
    counts = [count for count in STEPS if count < options.steps] + [options.steps]
    figures: dict[str, Any] = {"steps": [], "memory": _memory(counts)}
    for side, most in MOST_STEPS.items():
        for count in [count for count in counts if count <= max(most, counts[0])]:
            figure = {"steps": count, "side": side}
            for name, saver in SAVERS.items():
                with tempfile.TemporaryDirectory() as folder:
                    figure[name] = _steps(Path(folder), count, side, saver)
            figures["steps"].append(figure)
            _print_steps(figure)
    if options.turns:
        figures["turns"] = _turns(options.turns)
        _print_turns(figures["turns"])
    write_figures(options.json, figures)


def _print_steps(figure: dict[str, Any]) -> None:
    ours, plain = figure["ours"], figure["plain"]
    sys.stdout.write(
        f"step {figure['steps']:>5} with images of {figure['side']:>4} pixels: "
        f"{ours['bytes'] / 1000:6.1f} KB and {1000 * ours['seconds']:5.1f} ms; "
        f"{plain['bytes'] / ours['bytes']:6.2f} × the bytes and {plain['seconds'] / ours['seconds']:5.2f} × "
        f"the time with the whole state at each step (the target is {TARGET // 1000} KB)\n"
    )


def _steps(folder: Path, count: int, side: int, saver: Callable[[Path], Any]) -> dict[str, float]:
    """Return bytes (the mean) and seconds (the median) of the last steps, without the image's own."""
    node, first = _Node(ArtifactStore(folder / "pictures"), side), count - min(LAST, count)
    taken, sizes, ends = count - first, [0], [perf_counter()]
    with saver(folder / "checkpoints.sqlite") as opened:
        for number, _ in enumerate(_stream(node, count, folder, opened), 1):
            ends.append(perf_counter())
            if number in (first, count):
                sizes.append(_stored(folder, opened.conn))
            if number == first:
                ends[-1] = perf_counter()
    each = [end - begin for begin, end in zip(ends, ends[1:], strict=False)]
    seconds = [step - own for step, own in zip(each, node.seconds, strict=True)]
    return {"bytes": (sizes[-1] - sizes[-2]) / taken, "seconds": statistics.median(seconds[first:])}


def _memory(counts: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """Return by saver the MiB, resident and anonymous, that are added from the first step to later ones."""
    memory = {}
    for name in SAVERS:
        code = MEMORY.format(saver=name, counts=list(counts))
        output = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
        memory[name] = json.loads(output)
        last = memory[name][-1]
        sys.stdout.write(
            f"memory that {last['steps'] - 1} more steps add, {name}: {last['resident_mb']:.1f} MiB, "
            f"of them {last['anonymous_mb']:.1f} anonymous\n"
        )
    return memory


def print_memory(name: str, counts: Sequence[int]) -> None:
    """Print as JSON what `_memory` returns of one saver."""
    process, rows = psutil.Process(), list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder, SAVERS[name](Path(folder) / "checkpoints.sqlite") as saver:
        node = _Node(ArtifactStore(Path(folder) / "pictures"), min(MOST_STEPS))
        first = 0.0, 0.0
        for number, _ in enumerate(_stream(node, max(counts), Path(folder), saver), 1):
            if number == 1:
                first = memory_of(process)
            if number in counts:
                resident, anonymous = (
                    now - then for now, then in zip(memory_of(process), first, strict=True)
                )
                rows.append({"steps": number, "resident_mb": resident, "anonymous_mb": anonymous})
    sys.stdout.write(json.dumps(rows))


class _Node:
    """Node of the graph, which stores an image and appends an attempt; `seconds` are its own."""

    def __init__(self, store: ArtifactStore, side: int) -> None:
        self._store, self._image = store, Image.effect_noise((side, side), 100).convert("RGB")
        self.seconds: list[float] = []

    def __call__(self, state: State) -> dict[str, Any]:
        started, number, side = perf_counter(), len(state.attempts), self._image.width
        request = GenerateRequest(
            prompt=f"{CONCEPT} {number}",
            height=side,
            width=side,
            num_inference_steps=28,
            guidance_scale=3.5,
            seed=number,
        )
        self._image.putpixel((0, 0), (number % 256, number // 256, 0))
        picture = self._store.put(self._image)
        attempt = Attempt(number=number, request=request, picture=picture, seconds=1.0)
        self.seconds.append(perf_counter() - started)
        return changed(attempts=[attempt], usage=[Usage(seconds=1.0, images=1)])


def _stream(node: _Node, count: int, folder: Path, saver: SqliteSaver) -> Iterator[None]:
    """Run a graph of as many steps; yield after each, once it is in the log."""
    from langgraph.graph import END, START, StateGraph

    def after(state: State) -> str:
        return END if len(state.attempts) >= count else "generate"

    builder = StateGraph(State)
    builder.add_node("generate", node)
    builder.add_edge(START, "generate")
    builder.add_conditional_edges("generate", after)
    graph = builder.compile(checkpointer=saver)
    values: Any = {"prompt": CONCEPT, "seed": 1, "run_id": "measured"}
    config: Any = {**config_of("measured"), "recursion_limit": count + 5}
    with closing(EventLog(folder / "events.jsonl")) as log:
        for update in graph.stream(values, config, stream_mode="updates", durability="sync"):
            log.write(StepFinished.model_validate(update["generate"]), "generate")
            yield


def _stored(folder: Path, db: sqlite3.Connection) -> int:
    """Return the bytes of what the steps have written so far."""
    has_items = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'items'").fetchone()
    (size,) = db.execute(ROWS + (ITEMS if has_items else "")).fetchone()
    return int(size) + (folder / "events.jsonl").stat().st_size


def _own_saver(path: Path) -> Any:
    from pleinair.app.runs.checkpoints import open_file

    return open_file(path, lambda: None)


@contextmanager
def _plain_saver(path: Path) -> Iterator[SqliteSaver]:
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        saver.conn.execute("PRAGMA synchronous=FULL")
        yield saver


SAVERS: Mapping[str, Callable[[Path], Any]] = {"ours": _own_saver, "plain": _plain_saver}


class FreeGenerator:
    """Generator of a grey image in no time."""

    capabilities = Capabilities(
        id="gradient", slots=2, height=64, width=64, num_inference_steps=1, guidance_scale=1.0
    )

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: OnStep
    ) -> Image.Image:
        """Return a gradient."""
        on_step(1, 1)
        return Image.linear_gradient("L").resize((request.width, request.height)).convert("RGB")


class FreeDriver(BaseChatModel):
    """Driving model that has each wish drawn once, and finds its one concept there."""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model itself: it knows the tools."""
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        content: Any = messages[-1].content
        text = content if isinstance(content, str) else content[0]["text"]
        status = json.loads(text.removeprefix("```json\n").removesuffix("\n```"))
        calls: list[tuple[str, dict[str, Any]]]
        if status["shown"] and status["concepts"]:
            rows = [{"concept": CONCEPT, "status": "present", "confidence": 1.0}]
            calls = [("critique", {"picture": status["shown"][-1], "rows": rows})]
        else:
            concepts = [{"name": CONCEPT, "caption": f"a photo of a {CONCEPT}"}]
            calls = [("decompose", {"wish": status["prompt"], "concepts": concepts}), ("generate", {})]
        named = [
            {"name": name, "args": arguments, "id": f"{len(messages)}-{number}"}
            for number, (name, arguments) in enumerate(calls)
        ]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=named))])

    @property
    def _llm_type(self) -> str:
        return "free"


def _turns(count: int) -> dict[str, list[float]]:
    """Return bytes and seconds of each turn of a chat: what its run wrote, without images, and its thread."""
    from pleinair.app.api import finish
    from pleinair.app.chat.threads import Threads

    parts: Any = {"model": FreeDriver(), "generator": FreeGenerator()}
    sizes, seconds, steps = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, PLEINAIR_HOME=f"{folder}/home"):
        places = Paths(Path(folder, "home"))
        threads = Threads(places)
        thread = threads.create(out=f"{folder}/out")
        for number in range(count):
            started = perf_counter()
            with threads.opened(thread.id) as session:
                (submitted,) = session.submit(f"a {CONCEPT} of kind {number}", **parts)
            result = finish(submitted, **parts)
            seconds.append(perf_counter() - started)
            run_folder = places.run(result.run_id)
            files = [path for path in run_folder.glob("*") if path.is_file()]
            sizes.append(sum(path.stat().st_size for path in files))
            steps.append(_checkpoints(run_folder / "checkpoints.sqlite"))
        thread_bytes = len(threads.get(thread.id).model_dump_json())
    return {"bytes": sizes, "seconds": seconds, "steps": steps, "thread_bytes": [thread_bytes]}


def _checkpoints(path: Path) -> int:
    with sqlite3.connect(path) as db:
        (count,) = db.execute("SELECT count(*) FROM checkpoints").fetchone()
    db.close()
    return int(count)


def _print_turns(figures: dict[str, list[float]]) -> None:
    count = len(figures["bytes"])
    tenth = max(count // 10, 1)
    sizes, seconds = figures["bytes"], figures["seconds"]
    middle = slice(count // 2 - tenth // 2, count // 2 - tenth // 2 + tenth)
    growth = statistics.mean(sizes[-tenth:]) / statistics.mean(sizes[middle])
    slower = statistics.median(seconds[-tenth:]) / statistics.median(seconds[middle])
    per_step = sum(sizes) / sum(figures["steps"])
    sys.stdout.write(
        f"{count} turns: {sum(sizes) / 1e6:.1f} MB, {statistics.mean(sizes) / 1000:.0f} KB a turn and "
        f"{per_step / 1000:.1f} KB a step; the last tenth has {growth:.2f} × the bytes and {slower:.2f} × "
        f"the time of the tenth in the middle (linear: 1; quadratic: 2); the thread itself "
        f"{figures['thread_bytes'][0] / 1000:.0f} KB\n"
    )
