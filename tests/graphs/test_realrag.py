"""The RealRAG graph with fake engines: the raw prompt retrieves the references, and no model is called."""

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
from pleinair.tools.types import BadInput, Budget, GenerateRequest, Hit, Usage

PROMPT = "  a finch,\nby night  "
HITS = [Hit(id="far.png", score=-0.4), Hit(id="farther.png", score=-0.5), Hit(id="last.png", score=-0.6)]
AWAY = [Hit(id="other.png", score=-1.3), Hit(id="far.png", score=-1.4)]
TRAINING = Training(loss="reflective", generator="square")


class Trained(ListRetriever):
    """Retriever for the raw prompt alone, which records the images to keep away from."""

    def __init__(self, training: Training | None) -> None:
        super().__init__({PROMPT: HITS})
        self.training = training
        self.away: list[tuple[str, float, int, Image.Image]] = []

    def search_away(self, query: str, away: Image.Image, weight: float, k: int) -> list[Hit]:
        self.away.append((query, weight, k, away))
        return AWAY[:k]


class Studio:
    """The graph with fake engines; an MLLM call fails the test."""

    def __init__(
        self, folder: Path, training: Training | None = TRAINING, *, slots: int = 2, **options: Any
    ) -> None:
        self.retriever = Trained(training)
        self.generator = SquareGenerator(slots)
        fakes = make_context(folder, self.fail)
        self.context = Context(
            model=fakes.model,
            generator=self.generator,
            retriever=self.retriever,
            store=fakes.store,
            threshold=0.9,  # of the loop; RealRAG has none
            realrag=RealRAGOptions(**options),
        )

    @staticmethod
    def fail(*_: Any) -> str:
        raise AssertionError("RealRAG calls no model")

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
        return [[reference.hit.id for reference in request.references] for request in self.requests]


def test_the_raw_prompt_retrieves_one_reference_whatever_its_score(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    output = studio.run(seed=7)
    assert studio.used == [["far.png"]]
    (request,) = studio.requests
    assert (request.prompt, request.seed) == (PROMPT, 7)
    (retrieval,) = output.retrievals
    assert (retrieval.query, retrieval.threshold, retrieval.abstained) == (PROMPT, None, False)


def test_the_result_is_never_called_accepted(tmp_path: Path) -> None:
    assert Studio(tmp_path).end() == ("unchecked", "this graph does not check its image", 0)


def test_it_costs_one_image_and_no_mllm_call(tmp_path: Path) -> None:
    spent = Usage.total(Studio(tmp_path).run().usage)
    assert (spent.images, spent.mllm_calls) == (1, 0)


def test_more_references_are_used_in_order(tmp_path: Path) -> None:
    studio = Studio(tmp_path, references=2)
    studio.run()
    assert studio.used == [["far.png", "farther.png"]]


@pytest.mark.parametrize("slots", [0, 1])
def test_more_references_than_slots_are_an_error_and_nothing_is_generated(tmp_path: Path, slots: int) -> None:
    studio = Studio(tmp_path, slots=slots, references=slots + 1)
    with pytest.raises(BadInput, match=rf"references = {slots + 1}: `square` accepts {slots}"):
        studio.run()
    assert studio.requests == []


def test_a_retriever_of_another_generator_is_an_error(tmp_path: Path) -> None:
    studio = Studio(tmp_path, TRAINING.model_copy(update={"generator": "circle"}))
    with pytest.raises(BadInput, match="trained for generator `circle`, the run has `square`"):
        studio.run()
    assert studio.requests == []


def test_a_flag_accepts_it_anyway(tmp_path: Path) -> None:
    studio = Studio(tmp_path, Training(loss="reflective", generator="circle", any_generator=True))
    studio.run()
    assert studio.used == [["far.png"]]


@pytest.mark.parametrize(
    ("method", "training", "actual"),
    [
        ("reflective", None, "zero"),
        ("zero", TRAINING, "reflective"),
        ("normal", TRAINING, "reflective"),
        ("reflective", Training(loss="normal", generator="square"), "normal"),
    ],
)
def test_a_retriever_of_another_method_is_an_error(
    tmp_path: Path, method: str, training: Training | None, actual: str
) -> None:
    studio = Studio(tmp_path, training, method=method)
    with pytest.raises(BadInput, match=f"realrag.method = '{method}': the retriever is '{actual}'"):
        studio.run()
    assert studio.requests == []


def test_zero_accepts_an_untrained_retriever(tmp_path: Path) -> None:
    studio = Studio(tmp_path, None, method="zero")
    studio.run()
    assert studio.used == [["far.png"]]


def test_self_contrast_keeps_away_from_the_draft(tmp_path: Path) -> None:
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


def test_self_contrast_needs_a_retriever_that_compares_images(tmp_path: Path) -> None:
    context = make_context(tmp_path, Studio.fail, realrag=RealRAGOptions(method="self_contrast"))
    with pytest.raises(BadInput, match="cannot compare with an image"):
        call(graph, context, PROMPT)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [(Budget(attempts=1), "attempts"), (Budget(images=1), "images"), (Budget(seconds=0), "seconds")],
)
def test_no_draft_is_paid_for_without_an_image_after_it(tmp_path: Path, budget: Budget, reason: str) -> None:
    studio = Studio(tmp_path, None, method="self_contrast")
    assert studio.end(budget=budget) == ("stopped", reason, None)
    assert studio.requests == []


@pytest.mark.parametrize(
    ("budget", "reason"), [(Budget(attempts=0), "attempts"), (Budget(images=0), "images")]
)
def test_without_a_budget_nothing_is_retrieved(tmp_path: Path, budget: Budget, reason: str) -> None:
    studio = Studio(tmp_path)
    assert studio.end(budget=budget) == ("stopped", reason, None)
    assert studio.run(budget=budget).retrievals == []


def test_a_resumed_run_keeps_its_retrieval(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    saved: Any = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["generate"])
    thread: Any = {"configurable": {"thread_id": "1"}}
    saved.invoke(changed(prompt=PROMPT), thread, context=studio.context)
    studio.retriever.hits = {PROMPT: [Hit(id="new.png", score=1.0)]}
    saved.invoke(None, thread, context=studio.context)
    assert studio.used == [["far.png"]]


def test_a_library_without_a_licensed_image_is_the_reason_for_no_reference(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    every, studio.retriever.hits[PROMPT] = Trained(TRAINING), []
    assert studio.end() == ("stopped", "drawn without a reference: no image in the library was found", 0)
    studio.retriever.unlicensed = every  # type: ignore[attr-defined]
    output = studio.run()
    (retrieval,) = output.retrievals
    assert retrieval.excluded_by_license == ("far.png", "farther.png", "last.png")
    assert output.outcome is not None and output.outcome.limit is None
    assert output.attempts[-1].repairs == ()
    assert output.outcome.reason == "drawn without a reference: 3 images that match are excluded by license"
