"""Approval by a person in the loop: what is asked, and what each answer changes."""

from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from support.fake_engines import SquareGenerator, decomposition, make_context, rows

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.agent.context import Context
from pleinair.agent.state import Output
from pleinair.graphs.pleinair import builder
from pleinair.tools.types import Approve, BadInput, Hit, Reference

PROMPT = "a finch beside a coupe"
HITS = {
    "finch": [Hit(id="finch.png", score=0.8), Hit(id="finch-2.png", score=0.7)],
    "coupe": [Hit(id="coupe.png", score=0.8)],
    "heron": [Hit(id="heron.png", score=0.8)],
}
CONFIG: Any = {"configurable": {"thread_id": "1"}}


class Critic:
    """Critic that finds every concept in the images with references, and none in the draft."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, schema: str, question: dict[str, Any], images: int) -> dict[str, Any] | str:
        if schema == "Decomposition":
            return decomposition("finch", "coupe")
        self.images += 1
        number = self.images
        return rows(question, lambda name: number > 1)


class Parent(TypedDict, total=False):
    """State of a graph around ours."""

    prompt: str
    seed: int
    outcome: dict[str, Any]


class Run:
    """Run of the loop that stops at its questions."""

    def __init__(self, folder: Path, approve: Approve) -> None:
        self.generator = SquareGenerator(slots=2)
        self.context: Context = make_context(folder, Critic(), HITS, self.generator, approve=approve)
        self.graph = builder.compile(InMemorySaver())

    def go(self, value: Any) -> ApprovalRequest | Output:
        output = self.graph.invoke(value, CONFIG, context=self.context)
        waiting = self.graph.get_state(CONFIG).interrupts
        return ApprovalRequest.model_validate(waiting[0].value) if waiting else Output.model_validate(output)

    def start(self) -> ApprovalRequest:
        question = self.go({"prompt": PROMPT, "seed": 7})
        assert isinstance(question, ApprovalRequest)
        return question


def used(output: Any, number: int = -1) -> dict[str, str]:
    return {reference.concept: reference.hit.id for reference in output.attempts[number].request.references}


def test_a_graph_that_could_not_be_resumed_does_not_begin(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    with pytest.raises(BadInput, match=r"approve: .* needs a checkpointer.*builder\.compile"):
        builder.compile().invoke({"prompt": PROMPT}, context=run.context)
    assert not run.generator.requests


def test_a_subgraph_asks_by_the_checkpointer_around_it(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    parent: Any = StateGraph(Parent)
    parent.add_node("draw", builder.compile(context=run.context))
    parent.add_edge(START, "draw")
    graph = parent.compile(InMemorySaver())
    assert graph.invoke({"prompt": PROMPT, "seed": 7}, CONFIG)["__interrupt__"]
    assert graph.invoke(Command(resume=True), CONFIG)["outcome"]["ending"] == "accepted"


def test_references_are_asked_for_before_they_are_used(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    question = run.start()
    assert (question.before, question.attempt, len(run.generator.requests)) == ("references", 1, 1)
    assert {reference.concept: reference.hit.id for reference in question.references} == {
        "finch": "finch.png", "coupe": "coupe.png",
    }  # fmt: skip
    output = run.go(Command(resume=True))
    assert used(output) == {"finch": "finch.png", "coupe": "coupe.png"}


def test_an_approved_run_is_that_of_no_approval(tmp_path: Path) -> None:
    asked, free = Run(tmp_path / "a", "references"), Run(tmp_path / "b", "")
    asked.start()
    first, second = asked.go(Command(resume=True)), free.go({"prompt": PROMPT, "seed": 7})
    assert isinstance(first, Output) and isinstance(second, Output)
    assert [a.request for a in first.attempts] == [a.request for a in second.attempts]


def test_a_vetoed_hit_is_replaced_by_the_next(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    run.start()
    assert used(run.go(Command(resume={"vetoes": ["finch.png"]})))["finch"] == "finch-2.png"


def test_another_hit_is_chosen(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    run.start()
    assert used(run.go(Command(resume={"hits": {"finch": "finch-2.png"}})))["finch"] == "finch-2.png"


def test_an_input_image_is_given(tmp_path: Path) -> None:
    from PIL import Image

    run = Run(tmp_path, "references")
    run.start()
    picture = run.context.store.put(Image.new("RGB", (8, 8), "red"))
    reference = Reference(concept="coupe", hit=Hit(id=picture.sha256, score=1.0), picture=picture)
    output = run.go(Command(resume={"given": [reference.model_dump(mode="json")]}))
    assert used(output)["coupe"] == picture.sha256
    assert run.generator.requests[-1].references[1].picture == picture


def test_a_renamed_concept_is_retrieved_and_asked_for_again(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    run.start()
    question = run.go(Command(resume={"concepts": {"finch": "heron"}}))
    assert isinstance(question, ApprovalRequest)
    assert [concept.name for concept in question.concepts] == ["heron", "coupe"]
    assert used(run.go(Command(resume=True))) == {"heron": "heron.png", "coupe": "coupe.png"}


def test_another_prompt_is_generated_and_judged(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    run.start()
    output = run.go(Command(resume={"prompt": "a finch on a coupe"}))
    assert isinstance(output, Output)
    assert output.attempts[-1].request.prompt.startswith("a finch on a coupe")


def test_a_stopped_run_keeps_its_draft(tmp_path: Path) -> None:
    run = Run(tmp_path, "references")
    run.start()
    output = run.go(Command(resume=False))
    assert isinstance(output, Output)
    assert output.outcome and output.outcome.best
    assert (output.outcome.ending, output.outcome.best.number) == ("cancelled", 0)


def test_the_draft_is_asked_for_first(tmp_path: Path) -> None:
    run = Run(tmp_path, "draft")
    question = run.start()
    assert (question.before, question.attempt, run.generator.requests) == ("draft", 0, [])
    second = run.go(Command(resume={"prompt": "a finch"}))
    assert isinstance(second, ApprovalRequest)
    assert (second.before, run.generator.requests[0].prompt) == ("references", "a finch")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"hits": {"finch": "other.png"}}, "hit 'other.png' of 'finch'; there are: finch.png, finch-2.png"),
        ({"hits": {"cod": "finch.png"}}, "concept 'cod'; there are: finch, coupe"),
        ({"concepts": {"finch": "coupe"}}, "each must have a name of its own"),
        ({"concepts": {"finch": " "}}, "each must have a name of its own"),
        ({"prompt": "x" * 3000}, "3,000 characters"),
        ({"veto": ["finch.png"]}, "veto"),
        ("yes", "must be true, false or a table"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_and_can_be_given_again(
    tmp_path: Path, answer: Any, text: str
) -> None:
    run = Run(tmp_path, "references")
    run.start()
    question = run.go(Command(resume=answer))
    assert isinstance(question, ApprovalRequest) and text in question.fault
    assert used(run.go(Command(resume=True))) == {"finch": "finch.png", "coupe": "coupe.png"}


def test_a_graph_under_another_name_asks_or_refuses(tmp_path: Path) -> None:
    from pleinair.graphs.imagerag import builder as imagerag

    run = Run(tmp_path, "references")
    run.graph = builder.compile(InMemorySaver(), name="mine")
    assert run.start().before == "references"
    with pytest.raises(BadInput, match="graph 'mine' asks nobody"):
        imagerag.compile(name="mine").invoke({"prompt": PROMPT}, context=run.context)
