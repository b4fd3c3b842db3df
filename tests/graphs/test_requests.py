"""Several requests on one thread, with LangGraph's checkpointer: each has an output of its own."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from support.fake_driver import driver, reply
from support.fake_engines import SquareGenerator, decomposition, make_context, rows

from pleinair.agent.context import Context
from pleinair.agent.crossmodal import CrossmodalOutput
from pleinair.agent.imagerag import ImageRAGState
from pleinair.agent.state import Output, changed
from pleinair.tools.realrag import RealRAGOptions
from pleinair.tools.registry import names
from pleinair.tools.types import BadInput, Budget, Cancelled, Hit, ImageOptions

FINCH, COUPE = "a finch", "a coupe"
HITS = {name: [Hit(id=f"{name[2:]}.png", score=0.8, caption=name)] for name in (FINCH, COUPE)}
DRIVER = "react"
NO_OPTIONS = ImageOptions()
ACCEPTS = ("width", "height", "num_inference_steps", "guidance_scale", "reference_strength")
OPTIONS = {
    "width": 24,
    "height": 32,
    "num_inference_steps": 3,
    "guidance_scale": 2.5,
    "reference_strength": 0.25,
    "negative_prompt": "a cage",
}
OURS = ("crossmodal", "direct", "imagerag", "pleinair", "realrag", DRIVER)


def answer(schema: str, payload: dict[str, Any], _: int = 0) -> dict[str, Any]:
    """Answer with the prompt as the only concept, which is missing in every image."""
    answers: dict[str, Callable[[], dict[str, Any]]] = {
        "Decomposition": lambda: decomposition(payload["prompt"]),
        "SubQueries": lambda: {"subqueries": [payload["prompt"]]},
        "Decision": lambda: {"match": False, "why": "it is not there"},
        "MissingConcepts": lambda: {"concepts": [payload["prompt"]]},
        "Captions": lambda: {"captions": [{"name": name, "caption": name} for name in payload["concepts"]]},
    }
    return answers.get(schema, lambda: rows(payload, lambda _: False))()


def drive(status: dict[str, Any], _: Any) -> Any:
    """Generate one image of the prompt, and finish."""
    prompt = status["prompt"]
    wish = ("decompose", {"wish": prompt, "concepts": [{"name": prompt, "caption": prompt}]})
    if not status["concepts"]:
        return reply(wish, ("retrieve", {"concept": prompt}), ("generate", {}))
    return reply(("finish", {"reason": "that is it"}))


class Thread:
    """Several calls of a graph on one thread."""

    def __init__(self, folder: Path, graph: str, image: ImageOptions = NO_OPTIONS, **compiled: Any) -> None:
        self.generator = SquareGenerator(accepts=ACCEPTS, negative_prompt=True)
        options = {"realrag": RealRAGOptions(method="zero"), "image": image}
        context = make_context(folder, answer, HITS, self.generator, **options)
        if graph == DRIVER:
            object.__setattr__(context, "model", driver(drive))
        self.context: Context = context
        builder = import_module(f"pleinair.graphs.{graph}").builder
        self.graph: Any = builder.compile(checkpointer=InMemorySaver(), **compiled)
        self.config: Any = {"configurable": {"thread_id": "1"}}

    def ask(self, prompt: str | None, **fields: Any) -> Output:
        values = None if prompt is None else changed(prompt=prompt, **fields)
        output = self.graph.invoke(values, self.config, context=self.context)
        return CrossmodalOutput.model_validate(output or {})


def facts(output: Output) -> dict[str, Any]:
    """Return an output without its durations and the store's place."""
    values = output.model_dump(mode="json", exclude={"usage": {"__all__": {"seconds"}}, "image_url": True})
    for attempt in (*values["attempts"], (values["outcome"] or {}).get("best") or {}):
        attempt.pop("seconds", None)
    return values


def test_every_graph_of_ours_is_tested() -> None:
    assert set(OURS) <= set(names("graph"))


@pytest.mark.parametrize("graph", OURS)
def test_the_second_output_is_of_the_second_prompt(tmp_path: Path, graph: str) -> None:
    thread, alone = Thread(tmp_path / "both", graph), Thread(tmp_path / "alone", graph)
    first = thread.ask(FINCH, seed=1, budget=Budget(attempts=2))
    requests = len(thread.generator.requests)
    second = thread.ask(COUPE, seed=2, budget=Budget(attempts=2))
    assert second.outcome is not None and second.outcome.best is not None
    assert COUPE in second.outcome.best.request.prompt
    assert [attempt.number for attempt in second.attempts] == list(range(len(first.attempts)))
    assert len(thread.generator.requests) == 2 * requests
    expected = alone.ask(COUPE, seed=2, budget=Budget(attempts=2))
    shared = {"retrievals"} if graph == DRIVER else set()  # a chat keeps its retrievals
    assert drop(facts(second), shared) == drop(facts(expected), shared)


@pytest.mark.parametrize("graph", OURS)
@pytest.mark.parametrize("place", ["input", "settings", "both"])
def test_every_image_option_reaches_every_request(tmp_path: Path, graph: str, place: str) -> None:
    weaker = ImageOptions(width=64, guidance_scale=9) if place == "both" else ImageOptions()
    thread = Thread(tmp_path, graph, weaker if place != "settings" else ImageOptions.model_validate(OPTIONS))
    output = thread.ask(FINCH, seed=1, **({} if place == "settings" else {"image": OPTIONS}))
    sent = [request.model_dump(include=set(OPTIONS)) for request in thread.generator.requests]
    assert sent and all(options == OPTIONS for options in sent)
    assert {(attempt.picture.width, attempt.picture.height) for attempt in output.attempts} == {(24, 32)}


@pytest.mark.parametrize("graph", OURS)
def test_without_options_a_request_has_the_generators_own_values(tmp_path: Path, graph: str) -> None:
    thread = Thread(tmp_path, graph)
    thread.ask(FINCH, seed=1)
    request = thread.generator.requests[0]
    assert (request.width, request.height, request.num_inference_steps) == (16, 16, 4)
    assert (request.guidance_scale, request.reference_strength) == (1.0, None)
    assert "reference_strength" not in request.model_dump(mode="json")


@pytest.mark.parametrize("graph", OURS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sed": 1}, "input: unknown key 'sed'; accepted: prompt, seed, .* Did you mean `seed`"),
        ({"image": {"widht": 8}}, "image.widht = 8: unknown key; accepted: width, .* Did you mean `width`"),
        ({"image": {"width": 12}}, "image.width = 12: must be a multiple of 8"),
        (
            {"image": {"guidance_scale": float("nan")}},
            "image.guidance_scale = nan: must be a finite",
        ),
        ({"image": {"width": 24}}, "multiples of 16 pixels"),
        (
            {"image": {"reference_strength": 0.5}},
            "image.reference_strength = 0.5: generator `square`",
        ),
        ({"budget": {"seconds": float("inf")}}, "budget.seconds = inf: must be a finite number"),
    ],
)
def test_bad_input_is_refused_before_anything_is_generated(
    tmp_path: Path, graph: str, fields: dict[str, Any], words: str
) -> None:
    thread = Thread(tmp_path, graph)
    declared = thread.generator.capabilities
    thread.generator.capabilities = declared.model_copy(update={"multiple_of": 16, "accepts": ACCEPTS[:4]})
    with pytest.raises(BadInput, match=words):
        thread.graph.invoke({"prompt": FINCH, **fields}, thread.config, context=thread.context)
    assert not thread.generator.requests


@pytest.mark.parametrize("graph", OURS)
def test_a_prompt_from_outside_is_validated_once(
    tmp_path: Path, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = list[str]()
    monkeypatch.setattr("pleinair.agent.inputs.check_prompt", prompts.append)
    Thread(tmp_path, graph).ask(FINCH, seed=1)
    assert prompts == [FINCH]
    monkeypatch.undo()
    with pytest.raises(BadInput, match="prompt: it is empty"):
        Thread(tmp_path, graph).ask(" ")


def test_the_other_ways_to_start_a_graph_are_validated_too(tmp_path: Path) -> None:
    thread = Thread(tmp_path, "direct")
    with pytest.raises(BadInput, match="unknown key 'sed'"):
        list(thread.graph.stream({"prompt": FINCH, "sed": 1}, thread.config, context=thread.context))
    with pytest.raises(BadInput, match="unknown key 'sed'"):
        asyncio.run(thread.graph.ainvoke({"prompt": FINCH, "sed": 1}, thread.config, context=thread.context))


def drop(values: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


@pytest.mark.parametrize("graph", OURS)
def test_a_resumed_request_keeps_its_state(tmp_path: Path, graph: str) -> None:
    last = "act" if graph == DRIVER else "finish"
    thread = Thread(tmp_path, graph, interrupt_before=[last])
    uninterrupted = Thread(tmp_path / "uninterrupted", graph)
    thread.ask(FINCH, seed=1)
    for _ in range(9):
        if thread.graph.get_state(thread.config).next:
            output = thread.ask(None)
    assert output.outcome is not None
    assert facts(output) == facts(uninterrupted.ask(FINCH, seed=1))
    assert len(thread.generator.requests) == len(uninterrupted.generator.requests)


@pytest.mark.parametrize("graph", OURS)
def test_a_cancelled_request_leaves_nothing_to_the_next(tmp_path: Path, graph: str) -> None:
    thread, stopping = Thread(tmp_path, graph), True

    def stop(done: int, total: int) -> None:
        if stopping:
            raise Cancelled("stop")

    object.__setattr__(thread.context, "on_step", stop)
    with pytest.raises(Cancelled):
        thread.ask(FINCH, seed=1)
    stopping = False
    output = thread.ask(COUPE, seed=2)
    assert {attempt.request.seed for attempt in output.attempts[:1]} == {2}
    assert all(COUPE in attempt.request.prompt for attempt in output.attempts)
    assert all(retrieval.concept == COUPE for retrieval in output.retrievals if graph != DRIVER)


def test_subqueries_hold_for_one_request(tmp_path: Path) -> None:
    thread = Thread(tmp_path, "crossmodal")
    thread.ask(FINCH, subqueries=[FINCH])
    assert [retrieval.concept for retrieval in thread.ask(COUPE).retrievals] == [COUPE]


def test_the_fields_of_a_graphs_own_state_are_reset(tmp_path: Path) -> None:
    thread = Thread(tmp_path, "imagerag", interrupt_after=["begin"])
    for prompt in (FINCH, COUPE):
        thread.ask(prompt)
        state = ImageRAGState.model_validate(thread.graph.get_state(thread.config).values)
        assert (state.prompt, state.decision, state.missing, state.attempts) == (prompt, None, [], [])
        thread.ask(None)
