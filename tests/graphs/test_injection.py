"""Five hundred texts with instructions, and models that obey: a library can spoil an image and no more."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from support.fake_engines import SquareGenerator, decomposition, make_context, rows
from support.injections import (
    FIRST,
    SECOND,
    WHO,
    Everywhere,
    Obedient,
    hits,
    obedient_driver,
    orders,
    texts,
    watched,
)

from pleinair.agent.context import Context
from pleinair.agent.react import tools
from pleinair.agent.state import changed
from pleinair.graphs import crossmodal, imagerag, pleinair, react
from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.realrag import RealRAGOptions
from pleinair.tools.types import Budget, Hit, ModelFault, Usage

BUDGET = Budget(attempts=3, images=4, mllm_calls=30)
CLOSED = {"decompose", "generate", "critique", "retrieve", "veto", "pin", "finish"}
GRAPHS = {"crossmodal", "direct", "imagerag", "pleinair", "realrag"}
HITS, TEXTS, CHANCE = hits(), texts(), random.Random(3)
EACH = 20  # hits of one run
CHUNKS = [HITS[start : start + EACH] for start in range(0, len(HITS), EACH)]


def answer(schema: str, question: dict[str, Any], images: int) -> dict[str, Any]:
    """Answer with one of the texts wherever an answer has room for words."""
    text = CHANCE.choice(TEXTS)
    answers: dict[str, dict[str, Any]] = {
        "Decomposition": decomposition(FIRST, SECOND),
        "SubQueries": {"subqueries": [FIRST, SECOND]},
        "Decision": {"match": False, "why": text},
        "MissingConcepts": {"concepts": [FIRST]},
        "Captions": {"captions": [{"name": FIRST, "caption": text}]},
        "Rephrasing": {"prompt": text},
        "PictureCaption": {"caption": text},
        "Ranking": {"order": list(range(1, images + 1))},
    }
    if schema in answers:
        return answers[schema]
    judged = rows(question, lambda name: name == FIRST)
    return {"rows": [row | {"evidence": text[:200], "advice": text[:200]} for row in judged["rows"]]}


def obedient(folder: Path, library: list[Hit], generator: SquareGenerator) -> Context:
    context = make_context(
        folder,
        answer,
        generator=generator,
        k=EACH,
        imagerag=ImageRAGOptions(rerank=True),
        crossmodal=CrossmodalOptions(captions=4),
    )
    return replace(
        context, model=Obedient(policy=answer, schemas=[], obeyed=[]), retriever=Everywhere(library)
    )


def run(builder: Any, context: Context) -> dict[str, Any]:
    """Run a graph and return its last state as plain JSON; an unusable answer of the model ends it there."""
    graph, config = builder.compile(checkpointer=InMemorySaver()), {"configurable": {"thread_id": "1"}}
    values = changed(prompt="two things", seed=1, run_id="r", budget=BUDGET)
    with suppress(ModelFault):
        graph.invoke(values, context=context, config=config)
    return dict(graph.get_state(config).values)


def check_budget(state: dict[str, Any], generator: SquareGenerator) -> None:
    usage = Usage.total([Usage.model_validate(step) for step in state["usage"]])
    assert Budget.model_validate(state["budget"]) == BUDGET
    assert len(generator.requests) == usage.images <= 4
    assert usage.mllm_calls <= 30


def test_there_are_five_hundred_texts_and_nearly_half_are_instructions() -> None:
    samples = texts()
    assert len(set(samples)) == len(HITS) == 500
    assert sum(bool(orders(text)) for text in samples) > 200
    assert max(map(len, samples)) <= 120


@pytest.mark.parametrize("graph", [pleinair, imagerag, crossmodal], ids=lambda module: str(module.graph.name))
def test_captions_and_images_raise_no_limit_and_reach_nobody(graph: Any, tmp_path: Path) -> None:
    obeyed, endings = Counter[str](), Counter[str]()
    with watched() as events:
        for number, chunk in enumerate(CHUNKS):
            generator = SquareGenerator()
            context = obedient(tmp_path / str(number), chunk, generator)
            state = run(graph.builder, context)
            check_budget(state, generator)
            obeyed.update(context.model.obeyed)  # type: ignore[attr-defined]
            endings[state["outcome"]["ending"] if state.get("outcome") else "failed"] += 1
    assert events == []
    finished = endings["stopped"] + endings["unchecked"]
    assert finished >= (1 if graph is imagerag else len(CHUNKS))  # its answers are mostly unusable
    assert set(endings) <= {"stopped", "unchecked", "failed"}
    assert bool(obeyed) == (graph is imagerag)  # only its re-ranking shows a model the texts


def test_a_model_that_obeys_captions_calls_nothing_but_its_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    run_call = tools.run_call

    def noted(call: dict[str, Any], *rest: Any) -> Any:
        calls.append(call["name"])
        return run_call(call, *rest)

    monkeypatch.setattr(tools, "run_call", noted)
    shown = 0
    with watched() as events:
        for number, chunk in enumerate(CHUNKS):
            generator = SquareGenerator()
            driver = obedient_driver()
            untrained = RealRAGOptions(method="zero")  # else that graph is not offered
            context = obedient(tmp_path / str(number), chunk, generator)
            context = replace(context, model=driver, realrag=untrained)
            state = run(react.builder, context)
            check_budget(state, generator)
            shown += sum(WHO in str(message.content) for message in driver.sent[-1])
            assert set(driver.offered) == CLOSED | GRAPHS
    assert set(calls) <= CLOSED | GRAPHS
    assert {"decompose", "generate", "critique", "retrieve"} <= set(calls)
    assert shown > 10  # the texts did reach the model
    assert events == []
