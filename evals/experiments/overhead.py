"""Measure what the loop costs: a run against direct calls of its tools, its import against LangGraph's.

The engines do next to nothing, so the ratio is an upper bound: with a real generator it tends to 1. Not
covered: checkpoints, the run table, repairs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from PIL import Image

from pleinair.agent.context import Context
from pleinair.agent.state import changed
from pleinair.tools.callbacks import no_callback
from pleinair.tools.critique import critique
from pleinair.tools.decompose import decompose
from pleinair.tools.generate import generate
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Capabilities, GenerateRequest

PROMPT = "a hoopoe"
PARAMETERS: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": 1, "guidance_scale": 1}
INTERPRETERS = 3
TARGET = 0.3 / 0.8  # seconds: what the import may take, LangGraph's own taking 0.8 of CPU
PROBE = """
import time
start = time.process_time()
import langgraph.graph
langgraph = time.process_time()
import pleinair.graphs.pleinair
print((time.process_time() - langgraph) / (langgraph - start))
"""


class YesChat(BaseChatModel):
    """Chat model that finds one concept in every prompt and in every image."""

    schema_name: str = ""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a model that answers in the schema of the first tool."""
        return self.model_copy(update={"schema_name": tools[0].__name__})

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        answers: dict[str, dict[str, Any]] = {
            "Decomposition": {"concepts": [{"name": PROMPT, "caption": PROMPT}]},
            "Critique": {"rows": [{"concept": PROMPT, "status": "present", "confidence": 1.0}]},
        }
        call = {"name": self.schema_name, "args": answers[self.schema_name], "id": "call"}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=[call]))])

    @property
    def _llm_type(self) -> str:
        return "yes"


def _generate_grey(_: object, images: object, on_step: Callable[[int, int], None]) -> Image.Image:
    on_step(1, 1)
    return Image.linear_gradient("L").resize((16, 16)).convert("RGB")


def _make_context(folder: Path) -> Context:
    """Return a context of trivial engines: a grey image for every request, and an empty library."""
    capabilities = Capabilities(id="gradient", slots=0, **PARAMETERS)
    generator: Any = SimpleNamespace(capabilities=capabilities, generate=_generate_grey)
    retriever: Any = SimpleNamespace(search=lambda query, k: [], open=lambda id: None, entries=lambda: [])
    return Context(model=YesChat(), generator=generator, retriever=retriever, store=ArtifactStore(folder))


def _run_graph(context: Context, seed: int) -> None:
    from pleinair.graphs.pleinair import graph

    graph.invoke(changed(prompt=PROMPT, seed=seed, run_id="graph"), context=context)


def _call_tools(context: Context, seed: int) -> None:
    """Call decompose, generate and critique, as the loop does if the draft is accepted."""
    request = GenerateRequest(prompt=PROMPT, seed=seed, **PARAMETERS)
    concepts, _ = decompose(PROMPT, model=context.model)
    generator, store = context.generator, context.store
    picture = generate(request, generator=generator, store=store, run_id="hand", on_step=no_callback)
    critique(store.read(picture), PROMPT, concepts, model=context.model)


def measure(runs: int) -> tuple[float, float]:
    """Return the ratio of the medians, and the median of the direct calls in seconds; the two alternate."""
    with tempfile.TemporaryDirectory() as folder:
        context = _make_context(Path(folder))
        for call in (_run_graph, _call_tools):
            call(context, runs)  # imports and compilation are not measured
        pairs = [(_seconds(_run_graph, context, n), _seconds(_call_tools, context, n)) for n in range(runs)]
    graph, direct = (statistics.median(times) for times in zip(*pairs, strict=True))
    return graph / direct, direct


def _seconds(call: Callable[[Context, int], None], context: Context, seed: int) -> float:
    started = perf_counter()
    call(context, seed)
    return perf_counter() - started


def _import_ratio() -> float:
    """Return the CPU time of the loop's import over that of LangGraph's: the median of fresh interpreters."""
    command = [sys.executable, "-c", PROBE]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(INTERPRETERS))


def add(commands: Any) -> None:
    """Add the command and its options."""
    overhead = commands.add_parser(
        "overhead", help="compare the loop with direct calls of its tools", description=__doc__
    )
    overhead.add_argument("--runs", type=int, default=30, help="runs of each (30)")
    overhead.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    ratio, direct = measure(options.runs)
    sys.stdout.write(
        f"loop / plain calls = {ratio:.2f} (median of {options.runs}; plain calls {1000 * direct:.1f} ms)\n"
        f"import of the loop / of LangGraph = {_import_ratio():.2f} (the target is under {TARGET:.2f})\n"
    )
