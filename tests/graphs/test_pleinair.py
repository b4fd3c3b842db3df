"""The loop with fake engines: its requests, when it stops, and what it returns."""

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import pytest
from langchain_core.outputs import ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from pydantic import SkipValidation
from support.fake_engines import (
    PaidGenerator,
    ScriptedChat,
    SquareGenerator,
    call,
    decomposition,
    make_context,
    rows,
)

from pleinair.agent.context import Context
from pleinair.agent.state import Output, State
from pleinair.graphs.pleinair import builder, graph
from pleinair.tools.errors import NoImages, Unavailable
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.types import Budget, Cancelled, Hit, ModelFault, Outcome, Usage

PROMPT = "a finch beside a coupe"
HITS = {
    "finch": [Hit(id="finch.png", score=0.8), Hit(id="finch-2.png", score=0.7)],
    "coupe": [Hit(id="coupe.png", score=0.8)],
}


def run(context: Context, **fields: Any) -> Output:
    return call(graph, context, PROMPT, **fields)


def end(output: Output) -> Outcome:
    assert output.outcome is not None
    return output.outcome


class Critic:
    """Critic that finds a concept from the image on that `appears` gives for it, else never."""

    def __init__(self, *concepts: str, **appears: int) -> None:
        self.concepts, self.appears, self.images = concepts, appears, 0

    def __call__(self, schema: str, question: dict[str, Any], images: int) -> dict[str, Any] | str:
        if schema == "Decomposition":
            return decomposition(*self.concepts)
        assert images == 1
        number, self.images = self.images, self.images + 1
        return rows(question, lambda name: number >= self.appears.get(name, 99))


def test_a_complete_draft_is_accepted_without_a_retrieval(tmp_path: Path) -> None:
    output = run(make_context(tmp_path, Critic("finch", finch=0), HITS))
    assert end(output).ending == "accepted"
    assert len(output.attempts) == 1
    assert output.retrievals == []


def test_a_missing_concept_is_retrieved_from_the_library(tmp_path: Path) -> None:
    generator = SquareGenerator()
    output = run(make_context(tmp_path, Critic("finch", "coupe", finch=1, coupe=0), HITS, generator))
    assert end(output).ending == "accepted"
    assert [reference.hit.id for reference in generator.requests[1].references] == ["finch.png"]
    assert generator.requests[0].seed == generator.requests[1].seed
    assert [retrieval.concept for retrieval in output.retrievals] == ["finch"]


def test_a_reference_that_helped_stays_in_the_order_of_the_concepts(tmp_path: Path) -> None:
    generator = SquareGenerator()
    run(make_context(tmp_path, Critic("finch", "coupe", coupe=1, finch=2), HITS, generator))
    used = [[r.hit.id for r in request.references] for request in generator.requests]
    assert used == [[], ["finch.png", "coupe.png"], ["finch-2.png", "coupe.png"]]


def test_an_image_for_two_concepts_takes_one_slot(tmp_path: Path) -> None:
    both = Hit(id="both.png", score=0.6)
    hits = {name: [Hit(id=f"{name}.png", score=0.9), both] for name in ("finch", "coupe")}
    generator = SquareGenerator(slots=1)
    output = run(make_context(tmp_path, Critic("finch", "coupe", finch=1, coupe=1), hits, generator))
    assert end(output).ending == "accepted"
    assert [reference.hit.id for reference in generator.requests[1].references] == ["both.png"]


BOXES = {"finch": (0.0, 0.0, 0.5, 0.5), "coupe": (0.0, 0.5, 0.5, 1.0), "cod": (0.625, 0.0, 1.0, 0.5)}


@pytest.mark.parametrize(
    ("names", "crop"), [(("finch",), (0.0, 0.0, 0.5625, 0.5625)), (("finch", "coupe"), (0.0, 0.0, 0.5, 1.0))]
)
def test_a_reference_is_cropped_to_its_concepts(
    tmp_path: Path, names: tuple[str, ...], crop: tuple[float, ...]
) -> None:
    generator = SquareGenerator(slots=1)
    hits = {name: [Hit(id="three.png", score=0.6, boxes=BOXES)] for name in names}
    options = CropOptions(margin=0.125 if len(names) == 1 else 0, least=8)
    run(make_context(tmp_path, Critic(*names), hits, generator, crops=options), budget=Budget(attempts=2))
    (reference,) = generator.requests[1].references
    assert reference.crop == crop
    assert (reference.picture.width, reference.picture.height) == (16, 16)


def test_the_best_image_is_returned_when_later_ones_are_worse(tmp_path: Path) -> None:
    def forgetful(schema: str, question: dict[str, Any], images: int) -> dict[str, Any]:
        if schema == "Decomposition":
            return decomposition("finch", "coupe")
        forgetful.images += 1  # type: ignore[attr-defined]
        return rows(question, lambda name: name == "coupe" and forgetful.images == 1)  # type: ignore[attr-defined]

    forgetful.images = 0  # type: ignore[attr-defined]
    outcome = end(run(make_context(tmp_path, forgetful, HITS)))
    assert (outcome.ending, outcome.limit) == ("stopped", "attempts")
    assert outcome.reason == "the limit of 3 attempts is reached"
    assert outcome.best is not None and outcome.best.number == 0


def test_a_retrieval_that_abstains_turns_into_rewording(tmp_path: Path) -> None:
    generator = SquareGenerator()
    context = make_context(tmp_path, Critic("finch"), HITS, generator, threshold=0.9)
    output = run(context, budget=Budget(attempts=2))
    assert output.retrievals[0].abstained
    assert generator.requests[1].prompt == f"{PROMPT} Show the finch."
    assert generator.requests[1].seed != generator.requests[0].seed
    assert output.attempts[1].repairs[0].action == "reword"


def test_a_refused_prompt_ends_as_refused_with_its_draft(tmp_path: Path) -> None:
    output = run(make_context(tmp_path, lambda *_: "I draw only birds."))
    (draft,) = output.attempts
    assert end(output) == Outcome(ending="refused", reason="I draw only birds.", best=draft)


@pytest.mark.parametrize(
    ("budget", "limit", "images"),
    [
        (Budget(attempts=0), "attempts", 0),
        (Budget(attempts=2), "attempts", 2),
        (Budget(images=1), "images", 1),
        (Budget(mllm_calls=0), "mllm_calls", 1),
        (Budget(mllm_calls=2), "mllm_calls", 1),
        (Budget(seconds=0), "seconds", 0),
    ],
)
def test_the_outcome_has_the_limit_that_stopped_the_loop(
    tmp_path: Path, budget: Budget, limit: str, images: int
) -> None:
    output = run(make_context(tmp_path, Critic("finch"), HITS), budget=budget)
    assert (end(output).ending, end(output).limit) == ("stopped", limit)
    assert len(output.attempts) == images
    assert (end(output).best is not None) is (images > 0)


def test_an_image_that_takes_too_long_is_not_finished(tmp_path: Path) -> None:
    context = make_context(tmp_path, Critic("finch"), HITS, on_step=lambda *_: sleep(0.05))
    output = run(context, budget=Budget(seconds=0.1))
    assert (end(output).limit, output.attempts) == ("seconds", [])


def test_an_unjudged_image_is_never_accepted(tmp_path: Path) -> None:
    context = make_context(tmp_path, Critic("finch", finch=0), HITS)
    outcome = end(run(context, budget=Budget(mllm_calls=1)))
    assert (outcome.ending, outcome.limit) == ("stopped", "mllm_calls")
    assert outcome.best is not None and outcome.best.ledger is None


def test_cancelling_stops_between_two_diffusion_steps(tmp_path: Path) -> None:
    steps: list[int] = []

    def stop_at_two(done: int, total: int) -> None:
        steps.append(done)
        if done == 2:
            raise Cancelled("stop")

    context = make_context(tmp_path, Critic("finch"), HITS, on_step=stop_at_two)
    with pytest.raises(Cancelled):
        run(context)
    assert steps == [1, 2]
    assert not list((tmp_path / "artifacts").rglob("*.png"))


def test_a_critique_that_skips_a_concept_leaves_its_row_unsure(tmp_path: Path) -> None:
    def skips(schema: str, question: dict[str, Any], images: int) -> dict[str, Any]:
        return (
            decomposition("finch", "coupe")
            if schema == "Decomposition"
            else rows({"concepts": question["concepts"][:1]}, lambda _: True)
        )

    output = run(make_context(tmp_path, skips, HITS))
    assert end(output).ending == "stopped"
    judged_rows = [row for attempt in output.attempts if attempt.ledger for row in attempt.ledger.rows]
    assert {(row.concept, row.status) for row in judged_rows} == {("finch", "present"), ("coupe", "unsure")}
    assert all("must have the rows" in row.evidence for row in judged_rows if row.concept == "coupe")


def test_the_price_of_images_counts_against_the_budget(tmp_path: Path) -> None:
    context = make_context(tmp_path, Critic("finch"), HITS, PaidGenerator())
    output = run(context, budget=Budget(attempts=9, usd=0.07))
    assert (end(output).ending, end(output).limit) == ("stopped", "usd")
    assert len(output.attempts) == 2
    assert sum(usage.usd for usage in output.usage) == pytest.approx(0.08)


def test_an_mllm_call_is_not_repeated_beyond_the_budget(tmp_path: Path) -> None:
    context = make_context(tmp_path, lambda *_: {"concepts": "one"}, HITS)
    with pytest.raises(ModelFault, match="not a Decomposition") as fault:
        run(context, budget=Budget(mllm_calls=1))
    assert fault.value.spent.mllm_calls == 1


def test_the_checkpoint_holds_plain_json_without_pixels(tmp_path: Path) -> None:
    saver = InMemorySaver()
    app: Any = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    app.invoke({"prompt": PROMPT}, config, context=make_context(tmp_path, Critic("finch", finch=1), HITS))
    values = app.get_state(config).values
    assert {type(value) for value in values.values()} <= {str, int, bool, list, dict}
    sizes = [len(blob[1]) for blob in saver.blobs.values()]
    assert max(sizes) < 64 * 1024


def test_the_same_seed_yields_the_same_images(tmp_path: Path) -> None:
    def pictures(folder: str, seed: int) -> list[str]:
        output = run(make_context(tmp_path / folder, Critic("finch", finch=9), HITS), seed=seed)
        return [attempt.picture.sha256 for attempt in output.attempts]

    assert pictures("a", 7) == pictures("b", 7) != pictures("c", 8)


BOX = [0.0, 0.0, 0.5, 0.5]


def boxed(critic: Critic) -> Any:
    """Return a critic with a box for every missing concept."""

    def policy(schema: str, question: dict[str, Any], images: int) -> dict[str, Any] | str:
        answer = critic(schema, question, images)
        for row in answer.get("rows", []) if isinstance(answer, dict) else []:
            row |= {"box": BOX} if row["status"] == "missing" else {}
        return answer

    return policy


def test_the_box_of_a_missing_concept_is_inpainted_in_the_best_image(tmp_path: Path) -> None:
    generator = SquareGenerator(inpaint_slots=1)
    critic = boxed(Critic("finch", "coupe", coupe=0, finch=2))
    output = run(make_context(tmp_path, critic, HITS, generator))
    assert end(output).ending == "accepted"
    draft, *inpainted = output.attempts
    assert [[repair.action for repair in attempt.repairs] for attempt in inpainted] == [
        ["inpaint"],
        ["inpaint"],
    ]
    for attempt in inpainted:
        assert attempt.request.inpaint is not None
        assert (attempt.request.inpaint.concept, attempt.request.inpaint.picture) == ("finch", draft.picture)
        assert attempt.request.inpaint.box == tuple(BOX)
    assert [[reference.hit.id for reference in request.references] for request in generator.requests] == [
        [],
        ["finch.png"],
        ["finch-2.png"],
    ]


def test_with_two_missing_the_whole_image_is_generated_and_the_last_one_is_inpainted(tmp_path: Path) -> None:
    generator = SquareGenerator(slots=1, inpaint_slots=1)
    critic = boxed(Critic("finch", "coupe", coupe=1, finch=2))
    output = run(
        make_context(tmp_path, critic, {"coupe": HITS["coupe"], "finch": HITS["finch"][1:]}, generator)
    )
    _, full, inpainted = generator.requests
    assert [reference.hit.id for reference in full.references] == ["coupe.png"] and full.inpaint is None
    # the reference of what is kept stays, and takes no slot from that of the box
    assert [reference.concept for reference in inpainted.references] == ["finch", "coupe"]
    assert inpainted.inpaint is not None and inpainted.inpaint.picture == output.attempts[1].picture
    assert end(output).ending == "accepted"


def test_without_a_hit_the_box_is_inpainted_by_the_prompt(tmp_path: Path) -> None:
    generator = SquareGenerator(inpaint_slots=1)
    critic = boxed(Critic("finch", "coupe", coupe=0, finch=2))
    output = run(make_context(tmp_path, critic, HITS, generator, threshold=0.9))
    _, inpainted, reworded = generator.requests
    assert inpainted.inpaint is not None and inpainted.references == ()
    assert reworded.inpaint is None and reworded.prompt == f"{PROMPT} Show the finch."
    assert output.retrievals[0].abstained


def test_a_generator_without_slots_retrieves_nothing_for_a_box(tmp_path: Path) -> None:
    generator = SquareGenerator(slots=0, inpaint_slots=0)
    output = run(make_context(tmp_path, boxed(Critic("finch", "coupe", coupe=0, finch=1)), HITS, generator))
    assert output.retrievals == []
    assert (
        generator.requests[1].inpaint is not None
        and generator.requests[1].seed != output.attempts[0].request.seed
    )


class Failing(ScriptedChat):
    """Chat model that fails at its first call once the draft is generated, and answers from then on."""

    draft: SkipValidation[Event]

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        if self.draft.wait(300) and not self.schemas:
            self.schemas.append("failed")
            sleep(0.1)  # until the draft's task has ended, but for its callbacks
            raise Unavailable("no server")
        return super()._generate(*args, **kwargs)


class Telling(SquareGenerator):
    """Generator that tells when it has generated an image."""

    def __init__(self) -> None:
        super().__init__()
        self.done = Event()

    def generate(self, *args: Any) -> Image.Image:
        image = super().generate(*args)
        self.done.set()
        return image


@pytest.fixture
def slow_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass between the end of a task and its callbacks, in which LangGraph stores its result.

    A failure is reported at once, so that the step is already ending when the result is to be stored.
    """
    invoke = Future._invoke_callbacks  # type: ignore[attr-defined]

    def slowly(future: Any) -> None:
        sleep(0.0 if future.exception() else 0.3)
        invoke(future)

    monkeypatch.setattr(Future, "_invoke_callbacks", slowly)


@pytest.mark.usefixtures("slow_callbacks")
@pytest.mark.parametrize("is_killed", [False, True])  # before the error is raised
def test_a_draft_that_ends_while_the_first_call_fails_is_stored(tmp_path: Path, is_killed: bool) -> None:
    generator = Telling()
    model = Failing(policy=Critic("finch", finch=0), schemas=[], draft=generator.done)
    context = replace(make_context(tmp_path, Critic("finch"), HITS, generator), model=model)
    app: Any = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    if is_killed:
        app.invoke({"prompt": PROMPT}, config, context=context, interrupt_after=["critique"])
    else:
        with pytest.raises(Unavailable, match="no server"):
            app.invoke({"prompt": PROMPT}, config, context=context)
    values = app.get_state(config).values
    assert len(values["attempts"]) == 1 and "postponed" not in values
    assert "postponed" not in State(prompt=PROMPT, postponed=Unavailable()).model_dump(mode="json")
    output = Output.model_validate(app.invoke(None, config, context=context))  # resumed
    assert end(output).ending == "accepted"
    assert len(generator.requests) == 1


class Unknown(ScriptedChat):
    """Chat model on a server, not called yet."""

    proofs: list[str]
    takes_images: bool = True

    @property
    def is_proven(self) -> bool:
        return False

    def prove(self) -> Usage:
        self.proofs.append("proof")
        if not self.takes_images:
            raise NoImages("It takes no images.")
        return Usage(mllm_calls=1, tokens=7)


@pytest.mark.parametrize("takes_images", [True, False])
def test_an_unknown_model_is_proven_before_an_image_is_generated(tmp_path: Path, takes_images: bool) -> None:
    generator = SquareGenerator()
    model = Unknown(policy=Critic("finch", finch=0), schemas=[], proofs=[], takes_images=takes_images)
    context = replace(make_context(tmp_path, Critic("finch"), HITS, generator), model=model)
    if takes_images:
        output = run(context)
        assert (end(output).ending, len(model.proofs)) == ("accepted", 1)
        assert Usage.total(output.usage).tokens >= 7 and Usage.total(output.usage).mllm_calls == 2
    else:
        with pytest.raises(NoImages):
            run(context)
        assert generator.requests == []


@pytest.mark.parametrize("charged", [True, False])
def test_the_first_call_comes_before_an_image_that_costs(tmp_path: Path, charged: bool) -> None:
    def fails(*_: Any) -> str:
        raise Unavailable("no server")

    generator = SquareGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"charged": charged})
    with pytest.raises(Unavailable, match="no server"):
        run(make_context(tmp_path, fails, HITS, generator))
    assert len(generator.requests) == (0 if charged else 1)


def test_a_prompt_that_is_declined_costs_no_image(tmp_path: Path) -> None:
    generator = SquareGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"charged": True})
    output = run(make_context(tmp_path, lambda *_: "I must not.", HITS, generator))
    assert (end(output).ending, generator.requests) == ("refused", [])
