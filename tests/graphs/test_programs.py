"""Every graph as a LangGraph program: types, checkpointers, stream modes, sync and async."""

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
from support.fake_driver import reply, status_of
from support.fake_engines import ListRetriever, SquareGenerator, decomposition, rows
from support.recording_chat import ImageRAGAnswers

from pleinair.agent.context import Context
from pleinair.agent.state import Input, Output
from pleinair.tools.realrag import Training
from pleinair.tools.registry import names, resolve
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt, Budget, GenerateRequest, Hit, Outcome

GRAPHS = names("graph")
PROMPT = "a finch beside a coupe"
INPUT: dict[str, Any] = {"prompt": PROMPT, "seed": 7, "run_id": "r", "budget": {"attempts": 2}}
CONFIG: Any = {"configurable": {"thread_id": "t"}}
MODES = sorted(
    mode for mode in get_args(StreamMode) if mode != "tools"
)  # the events of LangGraph's own ToolNode
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
    """Model for every graph: the coupe is always missing; the react graph gets a fixed list of calls."""

    asks: str = ""
    painter: ImageRAGAnswers = ImageRAGAnswers("coupe")

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        names = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self.model_copy(update={"asks": names[0] if len(names) == 1 else ""})

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if self.asks:
            answer = AIMessage("", tool_calls=[{"name": self.asks, "args": self.answer(messages), "id": "c"}])
        else:
            answer = DRIVE[sum(isinstance(message, AIMessage) for message in messages)].model_copy()
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def answer(self, messages: list[BaseMessage]) -> dict[str, Any]:
        question = status_of(messages)
        if self.asks == "Decomposition":
            return decomposition("finch", "coupe")
        if self.asks == "Critique":
            return rows(question, lambda name: name == "finch")
        if self.asks == "SubQueries":
            return {"subqueries": ["finch", "coupe"]}
        return dict(getattr(self.painter, self.asks)(question))

    @property
    def _llm_type(self) -> str:
        return "polymath"


class AnyQuery(ListRetriever):
    """Retriever with the same hits for every query, trained for the generator."""

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


def compiled(name: str, saver: BaseCheckpointSaver[Any] | None = None) -> Any:
    return resolve("graph", name).builder.compile(checkpointer=saver, name=name)


def result_of(values: Any) -> tuple[Outcome, list[Attempt]]:
    """Return the outcome and the attempts without their durations."""
    output = Output.model_validate(values, extra="ignore")
    assert output.outcome is not None
    attempts = [attempt.model_copy(update={"seconds": 0.0}) for attempt in output.attempts]
    best = attempts[output.outcome.best.number] if output.outcome.best else None
    return output.outcome.model_copy(update={"best": best}), attempts


def expected(name: str, folder: Path) -> tuple[Outcome, list[Attempt]]:
    """Return the result of a run without a checkpointer."""
    return result_of(resolve("graph", name).invoke(INPUT, context=context(folder / "expected")))


@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_compiled_and_typed(name: str, tmp_path: Path) -> None:
    graph = resolve("graph", name)
    assert (graph.name, graph.context_schema, graph.checkpointer) == (name, Context, None)
    assert issubclass(graph.builder.input_schema, Input) and issubclass(graph.builder.output_schema, Output)
    values = graph.builder.input_schema(prompt=PROMPT, seed=7, run_id="r", budget=Budget(attempts=2))
    output = graph.invoke(values, context=context(tmp_path), version="v2").value
    assert isinstance(output, Output) and isinstance(output.outcome, Outcome)
    assert result_of(output.model_dump()) == expected(name, tmp_path)
    assert output.attempts and isinstance(output.attempts[0], Attempt)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_stream_mode_is_the_same_sync_and_async(name: str, tmp_path: Path) -> None:
    def kinds(parts: list[Any]) -> list[str]:
        return sorted(str(part["type"]) for part in parts)

    async def collect(graph: Any) -> list[Any]:
        stream = graph.astream(
            INPUT, CONFIG, context=context(tmp_path / "async"), stream_mode=MODES, version="v2"
        )
        return [part async for part in stream]

    graph = compiled(name, InMemorySaver())
    sync = list(
        graph.stream(INPUT, CONFIG, context=context(tmp_path / "sync"), stream_mode=MODES, version="v2")
    )
    asynchronous = asyncio.run(collect(compiled(name, InMemorySaver())))
    asks = {"messages"} if name not in ("direct", "realrag") else set()
    assert set(kinds(sync)) == {*MODES} - {"messages"} | asks
    assert kinds(sync) == kinds(asynchronous)
    steps = [part["data"]["done"] for part in sync if part["type"] == "custom" and "done" in part["data"]]
    assert steps == [1, 2, 3, 4] * len(expected(name, tmp_path)[1])
    assert [result_of(parts) for parts in (final(sync), final(asynchronous))] == [
        expected(name, tmp_path)
    ] * 2


def final(parts: list[Any]) -> Any:
    """Return the last state of a stream."""
    return [part["data"] for part in parts if part["type"] == "values"][-1].model_dump()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("name", GRAPHS)
def test_it_runs_with_a_checkpointer(name: str, kind: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "c.sqlite", check_same_thread=False)) as db:
        saver: BaseCheckpointSaver[Any] = SqliteSaver(db) if kind == "sqlite" else InMemorySaver()
        graph = compiled(name, saver)
        values = graph.invoke(INPUT, CONFIG, context=context(tmp_path / "one"))
        assert result_of(values) == result_of(graph.get_state(CONFIG).values) == expected(name, tmp_path)
        check_no_pixels(saver)
        assert replayed(graph, tmp_path / "one") == [result_of(values)] * 2


@pytest.mark.parametrize("name", GRAPHS)
def test_it_runs_with_a_checkpointer_in_an_event_loop(name: str, tmp_path: Path) -> None:
    async def run() -> list[Any]:
        async with async_savers(tmp_path) as savers:
            graphs = [compiled(name, saver) for saver in savers]
            return [await graph.ainvoke(INPUT, CONFIG, context=context(tmp_path / "one")) for graph in graphs]

    assert [result_of(values) for values in asyncio.run(run())] == [expected(name, tmp_path)] * 2


@asynccontextmanager
async def async_savers(folder: Path) -> AsyncIterator[list[BaseCheckpointSaver[Any]]]:
    async with AsyncSqliteSaver.from_conn_string(str(folder / "a.sqlite")) as saver:
        yield [saver, InMemorySaver()]


def replayed(graph: Any, folder: Path) -> list[tuple[Outcome, list[Attempt]]]:
    """Return the results of runs from the first checkpoint and from one in the middle."""
    history = list(graph.get_state_history(CONFIG))
    starts = (history[-1], history[len(history) // 2])
    return [result_of(graph.invoke(None, start.config, context=context(folder))) for start in starts]


def check_no_pixels(saver: BaseCheckpointSaver[Any]) -> None:
    """Check every checkpoint and write, as the saver would store it."""
    stored = list(saver.list(CONFIG))
    assert len(stored) > 2
    for checkpoint in stored:
        for value in (checkpoint.checkpoint, checkpoint.pending_writes):
            _, data = saver.serde.dumps_typed(value)
            assert len(data) < 2**17
            assert not [mark for mark in PIXELS if mark in data]


class Waiting(SquareGenerator):
    """Generator that waits until another task has seen that it started."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.resume = threading.Event(), threading.Event()
        self.loop_runs = True

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.started.set()
        self.loop_runs &= self.resume.wait(300)
        return super().generate(request, images, on_step)


@pytest.mark.parametrize("name", GRAPHS)
def test_generating_does_not_block_the_event_loop(name: str, tmp_path: Path) -> None:
    generator = Waiting()

    async def run() -> None:
        task = asyncio.create_task(
            resolve("graph", name).ainvoke(INPUT, context=context(tmp_path, generator))
        )
        while not generator.started.is_set():  # a blocked loop never leaves this one
            await asyncio.sleep(0.001)
        generator.resume.set()
        await task

    asyncio.run(run())
    assert generator.loop_runs
