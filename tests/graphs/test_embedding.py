"""Graphs within other programs: contexts, messages, tools, subgraphs, cancelled tasks, own parts."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from PIL import Image
from pydantic import BaseModel
from support.fake_engines import (
    ListRetriever,
    ScriptedChat,
    SquareGenerator,
    decomposition,
    make_context,
    rows,
)
from typing_extensions import TypedDict

from pleinair.agent.context import Context
from pleinair.agent.state import Input, Output
from pleinair.graphs.direct import builder as direct_builder
from pleinair.graphs.direct import graph as direct
from pleinair.graphs.pleinair import graph as pleinair
from pleinair.graphs.react import graph as react
from pleinair.tools.callbacks import Stop
from pleinair.tools.types import BadInput, Budget, Capabilities, GenerateRequest, Hit, ModelFault

PROMPT = "a finch"
OnStep = Callable[[int, int], None]


def answer(schema: str, payload: dict[str, Any], _: int) -> dict[str, Any]:
    return decomposition("finch") if schema == "Decomposition" else rows(payload, lambda _: False)


def context(folder: Path, generator: Any = None, **options: Any) -> Context:
    return make_context(folder, answer, {}, generator or SquareGenerator(negative_prompt=True), **options)


class TestInput:
    def test_two_runs_without_seed_and_run_id_are_two_runs(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        outputs = [direct.invoke({"prompt": PROMPT}, context=run) for _ in range(2)]
        seeds = {output["attempts"][0]["request"]["seed"] for output in outputs}
        assert len(seeds) == len(square(run).requests) == 2

    def test_another_generator_of_the_same_name_is_called(self, tmp_path: Path) -> None:
        values = {"prompt": PROMPT, "seed": 7}
        for _ in range(2):
            run = context(tmp_path)
            direct.invoke(values, context=run)
            assert len(square(run).requests) == 1

    def test_an_image_is_reused_within_a_run_only(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        for run_id in ("a", "a", "b"):
            direct.invoke({"prompt": PROMPT, "seed": 7, "run_id": run_id}, context=run)
        assert len(square(run).requests) == 2

    def test_a_server_that_repeats_a_run_does_not_pay_twice(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        config: Any = {"run_id": "0e2c5b1e-6d4f-4a7e-9a53-6b1f6f1f2c11"}
        for _ in range(2):
            direct.invoke({"prompt": PROMPT, "seed": 7}, config, context=run)
        assert len(square(run).requests) == 1

    @pytest.mark.parametrize(
        "values",
        [{"negative_prompt": "a cage", "width": 32}, {"image": {"negative_prompt": "a cage", "width": 32}}],
    )
    @pytest.mark.parametrize("graph", [direct, pleinair])
    def test_options_of_the_image_are_used(self, tmp_path: Path, graph: Any, values: dict[str, Any]) -> None:
        run = context(tmp_path)
        graph.invoke({"prompt": PROMPT, "budget": {"attempts": 1}, **values}, context=run)
        (request,) = square(run).requests
        assert (request.negative_prompt, request.width) == ("a cage", 32)

    def test_the_budget_of_the_context_is_that_of_inputs_without_one(self, tmp_path: Path) -> None:
        run = context(tmp_path, budget=Budget(attempts=2))
        for values, expected in (
            ({}, 2),
            ({"budget": {"images": 1}}, 1),
            ({"budget": Budget(attempts=1)}, 1),
        ):
            output = pleinair.invoke({"prompt": PROMPT, **values}, context=run)
            assert len(output["attempts"]) == expected

    @pytest.mark.parametrize(
        "messages",
        [
            [{"role": "user", "content": PROMPT}],
            [("user", "a wren"), ("assistant", "there it is"), ("user", PROMPT)],
            [HumanMessage("a wren"), AIMessage("there it is"), HumanMessage(PROMPT)],
            HumanMessage([{"type": "text", "text": PROMPT}]),
            PROMPT,
        ],
    )
    @pytest.mark.parametrize("graph", [direct, react])
    def test_the_last_user_message_is_the_prompt(self, tmp_path: Path, graph: Any, messages: Any) -> None:
        run = context(tmp_path)
        if graph is react:
            run = replace(run, model=ScriptedChat(policy=lambda *_: "no", schemas=[]))
            values: Any = next(graph.stream({"messages": messages}, context=run, stream_mode="values"))
            assert values["prompt"] == PROMPT
            return
        direct.invoke({"messages": messages}, context=run)
        assert square(run).requests[0].prompt == PROMPT

    @pytest.mark.parametrize(
        ("values", "error"),
        [
            ({"messages": []}, "messages: none is the user's"),
            ({"messages": [AIMessage("hello")]}, "messages: none is the user's"),
            ({"messages": [{"rolle": "user"}]}, "wanted a list of {'role': 'user'"),
            ({"messages": 3}, "messages: '3'; wanted a list"),
            ({"messages": [("user", "x")], "prompt": "y"}, "both prompt and messages"),
            (
                {"messages": [HumanMessage([{"type": "image", "base64": "AA==", "mime_type": "image/png"}])]},
                "messages: image in the user's last one; accepted: text",
            ),
        ],
    )
    def test_messages_without_a_prompt_are_refused(self, tmp_path: Path, values: Any, error: str) -> None:
        with pytest.raises(BadInput, match=error):
            direct.invoke(values, context=context(tmp_path))


def square(run: Context) -> SquareGenerator:
    assert isinstance(run.generator, SquareGenerator)
    return run.generator


def shows_the_best(output: dict[str, Any], run: Context) -> bool:
    best = Output.model_validate(output, extra="ignore").outcome
    assert best and best.best
    return bool(urlopen(output["image_url"]).read() == run.store.read(best.best.picture))


class TestContext:
    @pytest.mark.parametrize("kind", ["file", "data"])
    def test_the_output_has_the_url_of_the_image(self, tmp_path: Path, kind: Any) -> None:
        run = context(tmp_path, image_url=kind)
        for graph in (direct, pleinair):
            assert shows_the_best(graph.invoke({"prompt": PROMPT}, context=run), run)

    def test_a_data_url_is_in_no_checkpoint(self, tmp_path: Path) -> None:
        saver, config = InMemorySaver(), RunnableConfig(configurable={"thread_id": "1"})
        graph = direct_builder.compile(checkpointer=saver)
        run = context(tmp_path, image_url="data")
        output = graph.invoke({"prompt": PROMPT}, config, context=run)
        assert output["image_url"].startswith("data:image/png;base64,")
        for stored in saver.list(None):
            for value in (stored.checkpoint, stored.pending_writes):
                assert b"base64" not in saver.serde.dumps_typed(value)[1]

    def test_a_dict_of_parts_is_a_context(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        parts = {name: getattr(run, name) for name in ("model", "generator", "retriever", "store")}
        assert shows_the_best(direct.invoke({"prompt": PROMPT}, context=parts), run)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"retriver": 1}, "context: unknown key 'retriver'; .* Did you mean `retriever`"),
            ({"store": None}, "context: store missing. `pleinair.app.engines.build` makes all parts"),
            ({"k": "4"}, "^context.k = '4': must be a whole number$"),
            ({"k": 0}, "^context.k = 0: must be at least 1$"),
            ({"threshold": math.nan}, "^context.threshold = nan: must be a finite number$"),
            ({"budget": 3}, "^context.budget = 3: must be an instance of Budget$"),
            ({"budget": {"attempts": -1}}, "^context.budget.attempts = -1: must be at least 0$"),
            (
                {"budget": {"attemts": 1}},
                "^context.budget.attemts = 1: unknown key; .* Did you mean `attempts`",
            ),
            ({"image": {"width": 0}}, "^context.image.width = 0: must be greater than 0$"),
            ({"image": {"width": object()}}, "^context.image: Object of type object .* wanted a table"),
            ({"image_url": "png"}, "^context.image_url = 'png': must be 'file', 'data' or 'link'$"),
            ({"previews": 1}, "^context.previews = 1: must be true or false$"),
            ({"on_step": 1}, "^context.on_step = 1: must be a function$"),
            ({"captions": 1}, "^context.captions = 1: must be an instance of CaptionBook$"),
            ({"paper_retriever": 1}, "^context.paper_retriever: int has no method `search`"),
        ],
    )
    def test_a_dict_of_wrong_parts_is_refused(self, tmp_path: Path, change: Any, error: str) -> None:
        run = context(tmp_path)
        parts = {name: getattr(run, name) for name in ("model", "generator", "retriever", "store")} | change
        parts = {name: part for name, part in parts.items() if part is not None}
        with pytest.raises(BadInput, match=error):
            direct.invoke({"prompt": PROMPT}, context=parts)

    def test_tables_of_a_dict_of_parts_are_options(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        parts = {name: getattr(run, name) for name in ("model", "generator", "retriever", "store")}
        direct.invoke({"prompt": PROMPT}, context={**parts, "image": {"width": 32}})
        assert square(run).requests[0].width == 32

    def test_a_table_in_place_of_a_model_is_refused(self, tmp_path: Path) -> None:
        tables: dict[str, Any] = {"budget": {"attempts": 1}}
        with pytest.raises(BadInput, match="^context.budget = .*: must be an instance of Budget$"):
            replace(context(tmp_path), **tables)

    def test_a_graph_can_be_compiled_with_its_context(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        graph = direct_builder.compile(context=run)
        assert shows_the_best(graph.invoke({"prompt": PROMPT}), run)
        assert shows_the_best(graph.with_config(tags=["x"]).invoke({"prompt": PROMPT}), run)
        assert direct.builder.default_context is None  # type: ignore[attr-defined]


class AppState(TypedDict, total=False):
    """State of a user's graph."""

    topic: str
    prompt: str
    messages: list[Any]
    image_url: str
    outcome: dict[str, Any]


class AppModel(BaseModel):
    """The same as a model."""

    topic: str = ""
    prompt: str | None = None
    messages: list[Any] | None = None
    image_url: str | None = None


@dataclass
class MyContext:
    """Context of a user's graph."""

    user: str
    pleinair: Any = None


class TestSubgraph:
    @pytest.mark.parametrize("schema", [AppState, AppModel])
    @pytest.mark.parametrize("asynchronous", [False, True])
    @pytest.mark.parametrize("shape", ["object", "dict", "compiled"])
    @pytest.mark.parametrize("values", [{"prompt": PROMPT}, {"messages": [("user", PROMPT)]}])
    def test_a_node_of_a_graph_with_another_state_and_context(
        self, tmp_path: Path, schema: Any, asynchronous: bool, shape: str, values: Any
    ) -> None:
        run = context(tmp_path)
        node: Any = direct_builder.compile(context=run) if shape == "compiled" else direct
        parent: Any = StateGraph(schema, context_schema=dict if shape == "dict" else MyContext)
        parent.add_node("draw", node)
        parent.add_edge(START, "draw").add_edge("draw", END)
        contexts = {
            "object": MyContext("ann", run),
            "dict": {"user": "ann", "pleinair": run},
            "compiled": MyContext("ann"),
        }
        app = parent.compile()
        given = ({"topic": "birds", **values},)
        if asynchronous:
            output = asyncio.run(app.ainvoke(*given, context=contexts[shape]))
        else:
            output = app.invoke(*given, context=contexts[shape])
        assert (output["topic"], square(run).requests[0].prompt) == ("birds", PROMPT)
        assert urlopen(output["image_url"]).read()

    def test_a_function_of_a_graph_that_invokes_it(self, tmp_path: Path) -> None:
        run = context(tmp_path)

        def draw(state: AppState) -> AppState:
            return {"image_url": pleinair.invoke({"prompt": state["topic"]})["image_url"]}

        def typo(state: AppState) -> AppState:
            return {"image_url": pleinair.invoke({"promt": state["topic"]})["image_url"]}

        for node in (draw, typo):
            parent: Any = StateGraph(AppState, context_schema=MyContext)
            parent.add_node("draw", node).add_edge(START, "draw")
            app = parent.compile()
            if node is typo:
                with pytest.raises(BadInput, match="Did you mean `prompt`"):
                    app.invoke({"topic": PROMPT}, context=MyContext("ann", run))
            else:
                assert app.invoke({"topic": PROMPT}, context=MyContext("ann", run))["image_url"]

    def test_a_tool_of_an_agent(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        tool = direct.as_tool()
        assert tool.name == "direct"
        assert set(tool.args) == {"prompt", "negative_prompt", "width", "height", "seed"}
        call = {"name": "direct", "args": {"prompt": PROMPT, "width": 32}, "id": "1", "type": "tool_call"}
        parent: Any = StateGraph(MessagesState, context_schema=MyContext)
        parent.add_node("tools", ToolNode([tool])).add_edge(START, "tools")
        messages = [AIMessage("", tool_calls=[call])]
        for invoke in (
            parent.compile().invoke,
            lambda *a, **k: asyncio.run(parent.compile().ainvoke(*a, **k)),
        ):
            result = invoke({"messages": messages}, context=MyContext("ann", run))["messages"][-1]
            assert isinstance(result, ToolMessage)
            assert str(result.content).startswith("unchecked: ") and "file://" in str(result.content)
            assert shows_the_best(result.artifact, run)
        assert [request.width for request in square(run).requests] == [32, 32]

    def test_arguments_that_cannot_be_used_are_told_to_the_model(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        node: Any = StateGraph(MessagesState)
        node.add_node("tools", ToolNode([direct.as_tool(context=run)])).add_edge(START, "tools")
        wrong: list[dict[str, Any]] = [
            *({"prompt": "  "}, {"prompt": "x" * 2001}, {}),
            *({"prompt": "a finch", "width": 10**9}, {"prompt": "a finch", "seed": -1}),
        ]
        calls: list[Any] = [{"name": "direct", "args": args, "id": str(i)} for i, args in enumerate(wrong)]
        results = node.compile().invoke({"messages": [AIMessage("", tool_calls=calls)]})["messages"][1:]
        assert [result.status for result in results] == ["error"] * len(wrong)
        assert not square(run).requests

    def test_a_tool_with_its_own_context(self, tmp_path: Path) -> None:
        run = context(tmp_path, image_url="data")
        tool = direct.as_tool(name="draw", description="Draw.", context=run)
        result = tool.invoke({"name": "draw", "args": {"prompt": PROMPT}, "id": "1", "type": "tool_call"})
        assert (tool.name, tool.description) == ("draw", "Draw.")
        assert result.content.endswith("the image is in the artifact") and len(result.content) < 300


class SlowGenerator(SquareGenerator):
    """Generator of 100 steps, 20 ms each."""

    def __init__(self) -> None:
        super().__init__(steps=100)
        self.steps, self.at_work = 0, threading.Event()

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: OnStep
    ) -> Image.Image:
        def step(done: int, total: int) -> None:
            self.at_work.set()
            time.sleep(0.02)
            self.steps = done
            on_step(done, total)

        return super().generate(request, images, step)


class SlowChat(ScriptedChat):
    """Chat model of 0.1 s a call, whose every answer must be asked for again."""

    calls: list[float] = []

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        self.calls.append(time.monotonic())
        time.sleep(0.1)
        return super()._generate(messages, *args, **options)


class TestCancel:
    @pytest.mark.parametrize("way", ["cancel", "wait_for", "close"])
    @pytest.mark.parametrize("graph", [direct, pleinair])
    def test_it_stops_within_a_diffusion_step(self, tmp_path: Path, graph: Any, way: str) -> None:
        generator = SlowGenerator()
        run = context(tmp_path, generator)
        asyncio.run(END_BY[way](graph, run, generator.at_work))
        steps = generator.steps
        for thread in [thread for thread in threading.enumerate() if "generate" in thread.name]:
            thread.join(300)
            assert not thread.is_alive()
        assert generator.steps <= steps + 1 < 40
        assert not list((tmp_path / "artifacts").rglob("*.png"))

    def test_it_stops_within_a_call_of_the_model(self, tmp_path: Path) -> None:
        model = SlowChat(policy=lambda *_: {"concepts": "none"}, schemas=[], calls=[])
        run = replace(context(tmp_path), model=model)

        async def cancelled() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pleinair.ainvoke({"prompt": PROMPT}, context=run), 0.05)

        asyncio.run(cancelled())
        time.sleep(0.3)
        assert len(model.calls) <= 1

    def test_a_context_is_usable_again(self, tmp_path: Path) -> None:
        run = context(tmp_path)
        for _ in range(2):
            parts = direct.stream({"prompt": PROMPT}, context=run)
            next(parts)
            parts.close()  # type: ignore[attr-defined]
        assert direct.invoke({"prompt": PROMPT}, context=run)["image_url"]

    def test_a_run_stops_with_the_one_around_it(self) -> None:
        outer = Stop()
        outer.set()
        with pytest.raises(RuntimeError, match="caller of the run"):
            Stop(outer).check()


async def _cancel(graph: Any, run: Context, at_work: threading.Event) -> None:
    task = asyncio.create_task(graph.ainvoke({"prompt": PROMPT}, context=run))
    await asyncio.to_thread(at_work.wait, 300)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _wait_for(graph: Any, run: Context, at_work: threading.Event) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(graph.ainvoke({"prompt": PROMPT}, context=run), 0.3)


async def _close(graph: Any, run: Context, at_work: threading.Event) -> None:
    parts = graph.astream({"prompt": PROMPT}, context=run, stream_mode=["custom"])
    async for _ in parts:
        break
    await parts.aclose()


END_BY = {"cancel": _cancel, "wait_for": _wait_for, "close": _close}


class Own:
    """Part of a user with some members."""

    def __init__(self, **members: Any) -> None:
        vars(self).update(members)


DECLARED = SquareGenerator().capabilities
PARTS: list[tuple[str, Any, str]] = [
    ("generator", Own(capabilities=DECLARED), "Own has no method `generate`; wanted a Generator of pleinair"),
    ("generator", Own(generate=lambda *_: None), "Own has no `capabilities`"),
    (
        "generator",
        Own(capabilities={"slots": 1}, generate=lambda *_: None),
        "`capabilities` of Own is a dict",
    ),
    ("generator", Own(capabilities=DECLARED, generate=lambda prompt: None), "`generate` of Own takes"),
    ("generator", Own(capabilities=DECLARED, generate=3), "`generate` of Own is no method"),
    ("generator", SquareGenerator, "SquareGenerator is a class; pass an instance"),
    ("generator", None, "NoneType has no method `generate`"),
    ("retriever", Own(search=lambda query, k: []), "Own has no method `open`; wanted a Retriever"),
    (
        "retriever",
        Own(search=lambda query: []),
        r"`search` of Own takes \(query\) and is called with \(query, k\)",
    ),
    (
        "model",
        FakeListChatModel(responses=[]),
        "FakeListChatModel has no structured output; wanted a LangChain",
    ),
    ("model", Own(invoke=lambda *_: None), "Own is no chat model"),
    ("store", "pictures", "str has no method `put`; wanted a pleinair.tools.storage.artifacts.ArtifactStore"),
    ("scorer", Own(), "Own has no method `score`"),
]


class Asynchronous(SquareGenerator):
    """Generator with an asynchronous method."""

    async def generate(self, *_: Any) -> Any: ...  # type: ignore[override]


class Lazy:
    """Generator whose capabilities must not be read before a run."""

    @property
    def capabilities(self) -> Capabilities:
        raise AssertionError("it loads the model")

    def generate(self, request: Any, images: Any, on_step: Any) -> Any: ...


class Returns(SquareGenerator):
    """Generator that returns a fixed value."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def generate(self, request: Any, images: Any, on_step: Any) -> Any:
        return self.value


GRADIENT = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
PIXELS: list[tuple[Any, Any]] = [
    (GRADIENT, GRADIENT),
    (GRADIENT[None], GRADIENT),
    (GRADIENT[..., 0], np.stack([GRADIENT[..., 0]] * 3, -1)),
    (GRADIENT[..., :1], np.stack([GRADIENT[..., 0]] * 3, -1)),
    ((GRADIENT / 255).astype(np.float32), GRADIENT),
    (Image.fromarray(GRADIENT), GRADIENT),
]
NO_IMAGES: list[tuple[Any, str]] = [
    (None, "returned a NoneType; wanted a PIL image"),
    ([Image.new("RGB", (16, 16))], "returned a list; wanted"),
    (GRADIENT.astype(np.float32), r"returned a ndarray \[16, 16, 3\] of float32"),
    (np.zeros((16, 16, 7), np.uint8), r"\[16, 16, 7\] of uint8"),
    (np.zeros((2, 16, 16, 3), np.uint8), r"\[2, 16, 16, 3\]"),
    (GRADIENT.astype(np.int64), "of int64"),
    (np.zeros((0, 0, 3), np.uint8), "returned a ndarray"),
    (Image.new("RGB", (16, 16), "red"), "one flat colour, 16 × 16. A generator must return"),
]


class TestOwnParts:
    @pytest.mark.parametrize(("name", "part", "error"), PARTS)
    def test_a_part_is_checked_when_it_is_handed_over(
        self, tmp_path: Path, name: str, part: Any, error: str
    ) -> None:
        run = context(tmp_path)
        change: dict[str, Any] = {name: part}
        with pytest.raises(BadInput, match=f"context.{name}: {error}"):
            replace(run, **change)

    def test_an_asynchronous_method_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="`generate` of Asynchronous is asynchronous"):
            context(tmp_path, Asynchronous())

    def test_handing_over_reads_no_property(self, tmp_path: Path) -> None:
        assert replace(context(tmp_path), generator=Lazy())

    def test_other_capabilities_are_refused_before_anything_is_spent(self, tmp_path: Path) -> None:
        class Property(SquareGenerator):
            capabilities = property(lambda self: {"slots": 1}, lambda self, value: None)

        model = ScriptedChat(policy=answer, schemas=[])
        run = replace(context(tmp_path), generator=Property(), model=model)
        with pytest.raises(BadInput, match="`capabilities` is a dict; wanted a Capabilities"):
            pleinair.invoke({"prompt": PROMPT}, context=run)
        assert not model.schemas

    @pytest.mark.parametrize(("value", "pixels"), PIXELS)
    def test_an_image_of_one_reading_is_accepted(self, tmp_path: Path, value: Any, pixels: Any) -> None:
        run = context(tmp_path, Returns(value))
        best = Output.model_validate(direct.invoke({"prompt": PROMPT}, context=run)).outcome
        assert best and best.best
        assert (np.asarray(run.store.open(best.best.picture)) == pixels).all()

    @pytest.mark.parametrize(("value", "error"), NO_IMAGES)
    def test_anything_else_is_refused_with_what_is_wanted(
        self, tmp_path: Path, value: Any, error: str
    ) -> None:
        with pytest.raises(ModelFault, match=error):
            direct.invoke({"prompt": PROMPT}, context=context(tmp_path, Returns(value)))

    def test_the_parts_of_the_tests_follow_the_protocols(self, tmp_path: Path) -> None:
        assert context(tmp_path, scorer=Own(score=lambda texts, ids: None))
        assert ListRetriever({"": [Hit(id="x", score=1.0)]}).entries()
        assert Input(prompt=PROMPT).run_id == ""
