"""Every graph as a LangGraph program: typed ends, any checkpointer, every stream mode, sync and async."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, get_args

import pytest
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import StreamMode
from PIL import Image
from support.fake_driver import card_of, reply
from support.fake_engines import ListRetriever, SquareGenerator, decomposition, rows
from support.recording_chat import Painter

from pleinair.agent.context import Context
from pleinair.agent.state import Input, Output
from pleinair.tools.realrag import Training
from pleinair.tools.registry import names, resolve
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt, Budget, GenerateRequest, Hit, Outcome

GRAPHS = names("graph")
PROMPT = "a finch beside a coupe"
GIVEN: dict[str, Any] = {"prompt": PROMPT, "seed": 7, "run_id": "r", "budget": {"attempts": 2}}
CONFIG: Any = {"configurable": {"thread_id": "t"}}
MODES = sorted(
    mode for mode in get_args(StreamMode) if mode != "tools"
)  # those are of LangGraph's own ToolNode
PIXELS = (b"\x89PNG", b"iVBORw0KGgo", b"base64")
HITS = [Hit(id="finch.png", score=0.8, caption="a finch"), Hit(id="coupe.png", score=0.7, caption="a coupe")]
DRIVE = (
    reply(("decompose", {"wish": PROMPT})),
    reply(("generate", {})),
    reply(("critique", {"picture": 0})),
    reply(("retrieve", {"concept": "coupe"})),
    reply(("generate", {"repairs": [{"concept": "coupe", "action": "add_reference"}]})),
    reply(("critique", {"picture": 1})),
    reply(("finish", {"reason": "enough"})),
)


class Polymath(BaseChatModel):
    """Answer what every graph asks: the coupe is always missing; drive by a fixed list of calls."""

    asks: str = ""
    painter: Painter = Painter("coupe")

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        named = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self.model_copy(update={"asks": named[0] if len(named) == 1 else ""})

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if self.asks:
            answer = AIMessage(
                "", tool_calls=[{"name": self.asks, "args": self.fill_in(messages), "id": "c"}]
            )
        else:
            answer = DRIVE[sum(isinstance(one, AIMessage) for one in messages)].model_copy()
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def fill_in(self, messages: list[BaseMessage]) -> dict[str, Any]:
        card = card_of(messages)
        if self.asks == "Decomposition":
            return decomposition("finch", "coupe")
        if self.asks == "Critique":
            return rows(card, lambda name: name == "finch")
        if self.asks == "SubQueries":
            return {"subqueries": ["finch", "coupe"]}
        return dict(getattr(self.painter, self.asks)(card))

    @property
    def _llm_type(self) -> str:
        return "polymath"


class AnyQuery(ListRetriever):
    """Find the same pictures for every query, as a retriever that was trained for the generator."""

    training = Training(loss="reflective", generator="square")

    def __init__(self) -> None:
        super().__init__({"": HITS})

    def search(self, query: str, k: int) -> list[Hit]:
        return HITS[:k]


def context(folder: Path, generator: SquareGenerator | None = None) -> Context:
    return Context(
        model=Polymath(),
        generator=generator or SquareGenerator(),
        retriever=AnyQuery(),
        store=ArtifactStore(folder / "artifacts"),
    )


def built(name: str, saver: BaseCheckpointSaver[Any] | None = None) -> Any:
    return resolve("graph", name).builder.compile(checkpointer=saver, name=name)


def told(values: Any) -> tuple[Outcome, list[Attempt]]:
    """Read what a graph gave, without durations."""
    output = Output.model_validate(values, extra="ignore")
    assert output.outcome is not None
    still = [one.model_copy(update={"seconds": 0.0}) for one in output.attempts]
    best = still[output.outcome.best.number] if output.outcome.best else None
    return output.outcome.model_copy(update={"best": best}), still


def calm(name: str, folder: Path) -> tuple[Outcome, list[Attempt]]:
    """Give what an undisturbed run without a checkpointer comes to."""
    return told(resolve("graph", name).invoke(GIVEN, context=context(folder / "calm")))


@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_compiled_and_typed(name: str, tmp_path: Path) -> None:
    graph = resolve("graph", name)
    assert (graph.name, graph.context_schema, graph.checkpointer) == (name, Context, None)
    assert issubclass(graph.builder.input_schema, Input) and issubclass(graph.builder.output_schema, Output)
    given = graph.builder.input_schema(prompt=PROMPT, seed=7, run_id="r", budget=Budget(attempts=2))
    output = graph.invoke(given, context=context(tmp_path), version="v2").value
    assert isinstance(output, Output) and isinstance(output.outcome, Outcome)
    assert told(output.model_dump()) == calm(name, tmp_path)
    assert output.attempts and isinstance(output.attempts[0], Attempt)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_stream_mode_tells_the_same_sync_and_async(name: str, tmp_path: Path) -> None:
    def kinds(parts: list[Any]) -> list[str]:
        return sorted(str(part["type"]) for part in parts)

    async def collect(graph: Any) -> list[Any]:
        stream = graph.astream(
            GIVEN, CONFIG, context=context(tmp_path / "async"), stream_mode=MODES, version="v2"
        )
        return [part async for part in stream]

    graph = built(name, InMemorySaver())
    sync = list(
        graph.stream(GIVEN, CONFIG, context=context(tmp_path / "sync"), stream_mode=MODES, version="v2")
    )
    ours = asyncio.run(collect(built(name, InMemorySaver())))
    asks = {"messages"} if name not in ("direct", "realrag") else set()
    assert set(kinds(sync)) == {*MODES} - {"messages"} | asks
    assert kinds(sync) == kinds(ours)
    steps = [part["data"]["done"] for part in sync if part["type"] == "custom" and "done" in part["data"]]
    drawn = len(calm(name, tmp_path)[1])
    assert steps == [1, 2, 3, 4] * drawn
    assert [told(parts) for parts in (final(sync), final(ours))] == [calm(name, tmp_path)] * 2


def final(parts: list[Any]) -> Any:
    """Give the last state that was told."""
    return [part["data"] for part in parts if part["type"] == "values"][-1].model_dump()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("name", GRAPHS)
def test_it_runs_with_a_checkpointer(name: str, kind: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "c.sqlite", check_same_thread=False)) as db:
        saver: BaseCheckpointSaver[Any] = SqliteSaver(db) if kind == "sqlite" else InMemorySaver()
        graph = built(name, saver)
        values = graph.invoke(GIVEN, CONFIG, context=context(tmp_path / "one"))
        assert told(values) == told(graph.get_state(CONFIG).values) == calm(name, tmp_path)
        check_no_pixels(saver)
        assert replayed(graph, tmp_path / "one") == [told(values)] * 2


@pytest.mark.parametrize("name", GRAPHS)
def test_it_runs_with_a_checkpointer_in_an_event_loop(name: str, tmp_path: Path) -> None:
    async def run() -> list[Any]:
        async with async_savers(tmp_path) as savers:
            graphs = [built(name, saver) for saver in savers]
            return [await one.ainvoke(GIVEN, CONFIG, context=context(tmp_path / "one")) for one in graphs]

    assert [told(values) for values in asyncio.run(run())] == [calm(name, tmp_path)] * 2


@asynccontextmanager
async def async_savers(folder: Path) -> AsyncIterator[list[BaseCheckpointSaver[Any]]]:
    async with AsyncSqliteSaver.from_conn_string(str(folder / "a.sqlite")) as saver:
        yield [saver, InMemorySaver()]


def replayed(graph: Any, folder: Path) -> list[tuple[Outcome, list[Attempt]]]:
    """Go on from the first checkpoint and from one in the middle."""
    history = list(graph.get_state_history(CONFIG))
    starts = (history[-1], history[len(history) // 2])
    return [told(graph.invoke(None, start.config, context=context(folder))) for start in starts]


def check_no_pixels(saver: BaseCheckpointSaver[Any]) -> None:
    """Look at every checkpoint and write, as the saver would store it."""
    stored = list(saver.list(CONFIG))
    assert len(stored) > 2
    for one in stored:
        for value in (one.checkpoint, one.pending_writes):
            _, data = saver.serde.dumps_typed(value)
            assert len(data) < 2**17
            assert not [mark for mark in PIXELS if mark in data]


class Waiting(SquareGenerator):
    """Draw only once somebody else has seen that it began."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.go = threading.Event(), threading.Event()
        self.loop_lived = True

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.started.set()
        self.loop_lived &= self.go.wait(30)
        return super().generate(request, images, on_step)


@pytest.mark.parametrize("name", GRAPHS)
def test_drawing_does_not_block_the_event_loop(name: str, tmp_path: Path) -> None:
    generator = Waiting()

    async def run() -> None:
        drawing = asyncio.create_task(
            resolve("graph", name).ainvoke(GIVEN, context=context(tmp_path, generator))
        )
        while not generator.started.is_set():  # a loop that is blocked never gets past this
            await asyncio.sleep(0.001)
        generator.go.set()
        await drawing

    asyncio.run(run())
    assert generator.loop_lived
