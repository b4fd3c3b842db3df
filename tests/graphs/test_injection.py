"""Five hundred texts that give orders, and models that obey: a library can spoil a picture and no more."""

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
EACH = 20  # hits that one run sees
CHUNKS = [HITS[start : start + EACH] for start in range(0, len(HITS), EACH)]


def answer(schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
    """See a text in every picture, and repeat it wherever an answer has room for words."""
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
    seen = rows(card, lambda name: name == FIRST)
    return {"rows": [row | {"evidence": text[:200], "advice": text[:200]} for row in seen["rows"]]}


def obedient(folder: Path, found: list[Hit], generator: SquareGenerator) -> Context:
    context = make_context(
        folder,
        answer,
        generator=generator,
        k=EACH,
        imagerag=ImageRAGOptions(rerank=True),
        crossmodal=CrossmodalOptions(captions=4),
    )
    return replace(context, model=Obedient(policy=answer, asked=[], obeyed=[]), retriever=Everywhere(found))


def run(builder: Any, context: Context) -> dict[str, Any]:
    """Run a graph and give its last state, as plain JSON; a model whose answer is unusable ends it there."""
    graph, config = builder.compile(checkpointer=InMemorySaver()), {"configurable": {"thread_id": "1"}}
    asked = changed(prompt="two things", seed=1, run_id="r", budget=BUDGET)
    with suppress(ModelFault):
        graph.invoke(asked, context=context, config=config)
    return dict(graph.get_state(config).values)


def require_in_budget(state: dict[str, Any], generator: SquareGenerator) -> None:
    spent = [Usage.model_validate(one) for one in state["usage"]]
    assert Budget.model_validate(state["budget"]) == BUDGET
    assert len(generator.requests) == sum(one.images for one in spent) <= 4
    assert sum(one.mllm_calls for one in spent) <= 30


def test_there_are_five_hundred_and_most_of_a_half_are_orders() -> None:
    said = texts()
    assert len(set(said)) == len(HITS) == 500
    assert sum(bool(orders(text)) for text in said) > 200
    assert max(map(len, said)) <= 120


@pytest.mark.parametrize("graph", [pleinair, imagerag, crossmodal], ids=lambda one: str(one.graph.name))
def test_captions_and_pictures_raise_no_limit_and_reach_nobody(graph: Any, tmp_path: Path) -> None:
    obeyed, endings = Counter[str](), Counter[str]()
    with watched() as seen:
        for number, chunk in enumerate(CHUNKS):
            generator = SquareGenerator()
            context = obedient(tmp_path / str(number), chunk, generator)
            state = run(graph.builder, context)
            require_in_budget(state, generator)
            obeyed.update(context.model.obeyed)  # type: ignore[attr-defined]
            endings[state["outcome"]["ending"] if state.get("outcome") else "failed"] += 1
    assert seen == []
    ended = endings["stopped"] + endings["unchecked"]
    assert ended >= (1 if graph is imagerag else len(CHUNKS))  # its answers are mostly unusable
    assert set(endings) <= {"stopped", "unchecked", "failed"}
    assert bool(obeyed) == (graph is imagerag)  # of these only its re-ranking shows a model such words


def test_a_model_that_obeys_captions_calls_nothing_but_its_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    run_call = tools.run_call

    def noted(call: dict[str, Any], *rest: Any) -> Any:
        called.append(call["name"])
        return run_call(call, *rest)

    monkeypatch.setattr(tools, "run_call", noted)
    told = 0
    with watched() as seen:
        for number, chunk in enumerate(CHUNKS):
            generator = SquareGenerator()
            driver = obedient_driver()
            untrained = RealRAGOptions(method="zero")  # else that graph is not offered
            context = obedient(tmp_path / str(number), chunk, generator)
            context = replace(context, model=driver, realrag=untrained)
            state = run(react.builder, context)
            require_in_budget(state, generator)
            told += sum(WHO in str(one.content) for one in driver.heard[-1])
            assert set(driver.offered) == CLOSED | GRAPHS
    assert set(called) <= CLOSED | GRAPHS
    assert {"decompose", "generate", "critique", "retrieve"} <= set(called)
    assert told > 10  # the texts did reach the model
    assert seen == []
