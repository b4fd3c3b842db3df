"""Measure what the loop costs: a run against its verbs called by hand, its import against LangGraph's.

Engines here do next to nothing, so the ratio is an upper bound: with a real generator it tends to 1. Not
covered: checkpoints, the run table, repairs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
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
from pleinair.tools.types import Capabilities, GenerateRequest, Hit

SIDE = 16  # pixels
PROMPT = "a velmora finch"
INTERPRETERS = 3
AIM = 0.3 / 0.8  # seconds: what the import may take, where LangGraph's own takes 0.8 of CPU
PROBE = """
import time
start = time.process_time()
import langgraph.graph
langgraph = time.process_time()
import pleinair.graphs.pleinair
print((time.process_time() - langgraph) / (langgraph - start))
"""


class YesChat(BaseChatModel):
    """Find one concept in every prompt and see it in every picture."""

    schema_name: str = ""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Remember which schema is asked for."""
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


class GradientGenerator:
    """Draw a grey gradient."""

    capabilities = Capabilities(
        id="gradient", slots=0, height=SIDE, width=SIDE, num_inference_steps=1, guidance_scale=1
    )

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        """Draw at once."""
        on_step(1, 1)
        return Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")


class EmptyLibrary:
    """Find nothing."""

    def search(self, query: str, k: int) -> list[Hit]:
        """Find nothing."""
        return []

    def open(self, id: str) -> Image.Image:
        """Refuse: there are no pictures."""
        raise LookupError(id)

    def entries(self) -> list[Hit]:
        """List nothing."""
        return []


def _make_context(folder: Path) -> Context:
    """Put the trivial engines together."""
    return Context(
        model=YesChat(), generator=GradientGenerator(), retriever=EmptyLibrary(), store=ArtifactStore(folder)
    )


def _by_graph(context: Context, seed: int) -> None:
    """Run the loop once."""
    from pleinair.graphs.pleinair import graph

    graph.invoke(changed(prompt=PROMPT, seed=seed, run_id="graph"), context=context)  # type: ignore[call-overload]


def _by_hand(context: Context, seed: int) -> None:
    """Call decompose, generate and critique, as the loop does when the draft is accepted."""
    request = GenerateRequest(
        prompt=PROMPT, height=SIDE, width=SIDE, num_inference_steps=1, guidance_scale=1, seed=seed
    )
    concepts, _ = decompose(PROMPT, model=context.model)
    picture = generate(
        request, generator=context.generator, store=context.store, run_id="hand", on_step=no_callback
    )
    critique(context.store.read(picture), PROMPT, concepts, model=context.model)


def measure(runs: int) -> tuple[float, float]:
    """Give the ratio of the medians, and the median by hand in seconds; the two take turns."""
    with tempfile.TemporaryDirectory() as folder:
        context = _make_context(Path(folder))
        for call in (_by_graph, _by_hand):
            call(context, runs)  # what is imported or compiled once is not counted
        pairs = [(_seconds(_by_graph, context, n), _seconds(_by_hand, context, n)) for n in range(runs)]
    graph, hand = (statistics.median(times) for times in zip(*pairs, strict=True))
    return graph / hand, hand


def _seconds(call: Callable[[Context, int], None], context: Context, seed: int) -> float:
    """Time one call."""
    started = perf_counter()
    call(context, seed)
    return perf_counter() - started


def import_share(runs: int = INTERPRETERS) -> float:
    """Give the CPU time of the loop's import over that of LangGraph's: the median of fresh interpreters."""
    command = [sys.executable, "-c", PROBE]
    told = [subprocess.run(command, capture_output=True, env=os.environ, check=True) for _ in range(runs)]
    return statistics.median(float(one.stdout) for one in told)
