"""RealRAG with scripted engines: the raw prompt finds the references, always, and nothing is asked."""

from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from support.fake_engines import ListRetriever, SquareGenerator, call, make_context

from pleinair.agent.context import Context
from pleinair.agent.state import Output, changed
from pleinair.graphs.realrag import builder, graph
from pleinair.tools.realrag import RealRAGOptions, Training
from pleinair.tools.types import BadInput, Budget, GenerateRequest, Hit

PROMPT = "  a finch,\nby night  "
HITS = [Hit(id="far.png", score=-0.4), Hit(id="farther.png", score=-0.5), Hit(id="last.png", score=-0.6)]
AWAY = [Hit(id="other.png", score=-1.3), Hit(id="far.png", score=-1.4)]
OWN = Training(loss="reflective", generator="square")


class Trained(ListRetriever):
    """Answer the raw prompt only; keep what was to be kept away from."""

    def __init__(self, training: Training | None) -> None:
        super().__init__({PROMPT: HITS})
        self.training = training
        self.away: list[tuple[str, float, int, Image.Image]] = []

    def search_away(self, query: str, away: Image.Image, weight: float, k: int) -> list[Hit]:
        self.away.append((query, weight, k, away))
        return AWAY[:k]


class Studio:
    """Run the graph with scripted engines; a question to the model fails the test."""

    def __init__(
        self, folder: Path, training: Training | None = OWN, *, slots: int = 2, **options: Any
    ) -> None:
        self.retriever = Trained(training)
        self.generator = SquareGenerator(slots)
        doubles = make_context(folder, self.unasked)
        self.context = Context(
            model=doubles.model,
            generator=self.generator,
            retriever=self.retriever,
            store=doubles.store,
            threshold=0.9,  # of the loop's; RealRAG has none
            realrag=RealRAGOptions(**options),
        )

    @staticmethod
    def unasked(*_: Any) -> str:
        raise AssertionError("RealRAG asks no model")

    def run(self, **fields: Any) -> Output:
        return call(graph, self.context, PROMPT, **fields)

    def end(self, **fields: Any) -> tuple[str, str, int | None]:
        """Run and return the ending, its limit or reason, and the number of the best attempt."""
        outcome = self.run(**fields).outcome
        assert outcome is not None
        return outcome.ending, outcome.limit or outcome.reason, outcome.best.number if outcome.best else None

    @property
    def requests(self) -> list[GenerateRequest]:
        return self.generator.requests

    @property
    def used(self) -> list[list[str]]:
        return [[one.hit.id for one in request.references] for request in self.requests]


def test_the_raw_prompt_finds_one_reference_however_far(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    output = studio.run(seed=7)
    assert studio.used == [["far.png"]]
    (request,) = studio.requests
    assert (request.prompt, request.seed) == (PROMPT, 7)
    (found,) = output.retrievals
    assert (found.query, found.threshold, found.abstained) == (PROMPT, None, False)


def test_the_result_is_never_called_accepted(tmp_path: Path) -> None:
    assert Studio(tmp_path).end() == ("unchecked", "this graph does not check its image", 0)


def test_it_costs_one_picture_and_no_question(tmp_path: Path) -> None:
    usage = Studio(tmp_path).run().usage
    assert (sum(one.images for one in usage), sum(one.mllm_calls for one in usage)) == (1, 0)


def test_more_references_are_taken_in_order(tmp_path: Path) -> None:
    studio = Studio(tmp_path, references=2)
    studio.run()
    assert studio.used == [["far.png", "farther.png"]]


@pytest.mark.parametrize("slots", [0, 1])
def test_more_references_than_slots_are_refused_and_nothing_is_drawn(tmp_path: Path, slots: int) -> None:
    studio = Studio(tmp_path, slots=slots, references=slots + 1)
    with pytest.raises(BadInput, match=rf"references = {slots + 1}: `square` takes {slots}"):
        studio.run()
    assert studio.requests == []


def test_a_retriever_of_another_generator_is_refused(tmp_path: Path) -> None:
    studio = Studio(tmp_path, OWN.model_copy(update={"generator": "circle"}))
    with pytest.raises(BadInput, match="trained for generator `circle`, the run has `square`"):
        studio.run()
    assert studio.requests == []


def test_a_flag_takes_it_all_the_same(tmp_path: Path) -> None:
    studio = Studio(tmp_path, Training(loss="reflective", generator="circle", any_generator=True))
    studio.run()
    assert studio.used == [["far.png"]]


@pytest.mark.parametrize(
    ("method", "training", "have"),
    [
        ("reflective", None, "zero"),
        ("zero", OWN, "reflective"),
        ("normal", OWN, "reflective"),
        ("reflective", Training(loss="normal", generator="square"), "normal"),
    ],
)
def test_a_retriever_is_not_passed_off_as_another(
    tmp_path: Path, method: str, training: Training | None, have: str
) -> None:
    studio = Studio(tmp_path, training, method=method)
    with pytest.raises(BadInput, match=f"realrag.method = '{method}': the retriever is '{have}'"):
        studio.run()
    assert studio.requests == []


def test_zero_takes_an_untrained_retriever(tmp_path: Path) -> None:
    studio = Studio(tmp_path, None, method="zero")
    studio.run()
    assert studio.used == [["far.png"]]


def test_self_contrast_looks_away_from_the_generators_own_picture(tmp_path: Path) -> None:
    studio = Studio(tmp_path, None, method="self_contrast", weight=0.75)
    output = studio.run(seed=3)
    assert studio.used == [[], ["other.png"]]
    ((query, weight, k, away),) = studio.retriever.away
    assert (query, weight, k) == (PROMPT, 0.75, 4)
    assert away.tobytes() == studio.context.store.open(output.attempts[0].picture).tobytes()
    draft, final = studio.requests
    assert final == draft.model_copy(update={"references": final.references})
    assert output.outcome is not None
    assert output.outcome.best == output.attempts[1]


def test_self_contrast_needs_a_retriever_that_compares_pictures(tmp_path: Path) -> None:
    context = make_context(tmp_path, Studio.unasked, realrag=RealRAGOptions(method="self_contrast"))
    with pytest.raises(BadInput, match="cannot compare with a picture"):
        call(graph, context, PROMPT)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [(Budget(attempts=1), "attempts"), (Budget(images=1), "images"), (Budget(seconds=0), "seconds")],
)
def test_no_draft_is_paid_for_that_no_picture_can_follow(tmp_path: Path, budget: Budget, reason: str) -> None:
    studio = Studio(tmp_path, None, method="self_contrast")
    assert studio.end(budget=budget) == ("stopped", reason, None)
    assert studio.requests == []


@pytest.mark.parametrize(
    ("budget", "reason"), [(Budget(attempts=0), "attempts"), (Budget(images=0), "images")]
)
def test_without_a_budget_nothing_is_looked_up(tmp_path: Path, budget: Budget, reason: str) -> None:
    studio = Studio(tmp_path)
    assert studio.end(budget=budget) == ("stopped", reason, None)
    assert studio.run(budget=budget).retrievals == []


def test_a_stopped_run_keeps_what_it_found(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    saved: Any = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["generate"])
    thread: Any = {"configurable": {"thread_id": "1"}}
    saved.invoke(changed(prompt=PROMPT), thread, context=studio.context)
    studio.retriever.hits = {PROMPT: [Hit(id="new.png", score=1.0)]}
    saved.invoke(None, thread, context=studio.context)
    assert studio.used == [["far.png"]]
