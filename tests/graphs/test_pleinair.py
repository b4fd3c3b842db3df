"""The loop with scripted engines: what it draws, when it stops, what it gives back."""

from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from support.fake_engines import PaidGenerator, SquareGenerator, call, decomposition, make_context, rows

from pleinair.agent.context import Context
from pleinair.agent.state import Output
from pleinair.graphs.pleinair import builder, graph
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.types import Budget, Cancelled, Hit, ModelFault, Outcome

PROMPT = "a finch beside a coupe"
HITS = {
    "finch": [Hit(id="finch.png", score=0.8), Hit(id="finch-2.png", score=0.7)],
    "coupe": [Hit(id="coupe.png", score=0.8)],
}


def run(context: Context, **fields: Any) -> Output:
    return call(graph, context, PROMPT, **fields)


def ended(output: Output) -> Outcome:
    assert output.outcome is not None
    return output.outcome


class Critic:
    """See a concept from the attempt on that `appears` names, never if it names none."""

    def __init__(self, *concepts: str, **appears: int) -> None:
        self.concepts, self.appears, self.looks = concepts, appears, 0

    def __call__(self, schema: str, card: dict[str, Any], images: int) -> dict[str, Any] | str:
        if schema == "Decomposition":
            return decomposition(*self.concepts)
        assert images == 1
        looks, self.looks = self.looks, self.looks + 1
        return rows(card, lambda name: looks >= self.appears.get(name, 99))


def test_a_good_draft_is_accepted_without_a_look_up(tmp_path: Path) -> None:
    output = run(make_context(tmp_path, Critic("finch", finch=0), HITS))
    assert ended(output).ending == "accepted"
    assert len(output.attempts) == 1
    assert output.retrievals == []


def test_what_is_missing_comes_from_the_library(tmp_path: Path) -> None:
    generator = SquareGenerator()
    output = run(make_context(tmp_path, Critic("finch", "coupe", finch=1, coupe=0), HITS, generator))
    assert ended(output).ending == "accepted"
    assert [reference.hit.id for reference in generator.requests[1].references] == ["finch.png"]
    assert generator.requests[0].seed == generator.requests[1].seed
    assert [one.concept for one in output.retrievals] == ["finch"]


def test_a_reference_that_brought_its_concept_stays_in_the_order_of_the_concepts(tmp_path: Path) -> None:
    generator = SquareGenerator()
    run(make_context(tmp_path, Critic("finch", "coupe", coupe=1, finch=2), HITS, generator))
    used = [[r.hit.id for r in request.references] for request in generator.requests]
    assert used == [[], ["finch.png", "coupe.png"], ["finch-2.png", "coupe.png"]]


def test_a_picture_for_two_concepts_takes_one_slot(tmp_path: Path) -> None:
    both = Hit(id="both.png", score=0.6)
    hits = {name: [Hit(id=f"{name}.png", score=0.9), both] for name in ("finch", "coupe")}
    generator = SquareGenerator(slots=1)
    output = run(make_context(tmp_path, Critic("finch", "coupe", finch=1, coupe=1), hits, generator))
    assert ended(output).ending == "accepted"
    assert [one.hit.id for one in generator.requests[1].references] == ["both.png"]


BOXES = {"finch": (0.0, 0.0, 0.5, 0.5), "coupe": (0.0, 0.5, 0.5, 1.0), "cod": (0.625, 0.0, 1.0, 0.5)}


@pytest.mark.parametrize(
    ("names", "crop"),
    [(("finch",), (0.0, 0.0, 0.5625, 0.5625)), (("finch", "coupe"), (0.0, 0.0, 0.5, 1.0))],
)
def test_a_reference_is_cut_down_to_the_concepts_that_it_is_to_show(
    tmp_path: Path, names: tuple[str, ...], crop: tuple[float, ...]
) -> None:
    generator = SquareGenerator(slots=1)
    hits = {name: [Hit(id="three.png", score=0.6, boxes=BOXES)] for name in names}
    options = CropOptions(margin=0.125 if len(names) == 1 else 0, least=8)
    run(make_context(tmp_path, Critic(*names), hits, generator, crops=options), budget=Budget(attempts=2))
    (reference,) = generator.requests[1].references
    assert reference.crop == crop
    assert (reference.picture.width, reference.picture.height) == (16, 16)


def test_the_best_picture_is_kept_when_later_ones_are_worse(tmp_path: Path) -> None:
    def forgetful(schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
        if schema == "Decomposition":
            return decomposition("finch", "coupe")
        forgetful.looks += 1  # type: ignore[attr-defined]
        return rows(card, lambda name: name == "coupe" and forgetful.looks == 1)  # type: ignore[attr-defined]

    forgetful.looks = 0  # type: ignore[attr-defined]
    outcome = ended(run(make_context(tmp_path, forgetful, HITS)))
    assert (outcome.ending, outcome.limit) == ("stopped", "attempts")
    assert outcome.reason == "the limit of 3 attempts is reached"
    assert outcome.best is not None and outcome.best.number == 0


def test_an_abstaining_look_up_turns_into_words(tmp_path: Path) -> None:
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
    assert ended(output) == Outcome(ending="refused", reason="I draw only birds.", best=draft)


@pytest.mark.parametrize(
    ("budget", "limit", "pictures"),
    [
        (Budget(attempts=0), "attempts", 0),
        (Budget(attempts=2), "attempts", 2),
        (Budget(images=1), "images", 1),
        (Budget(mllm_calls=0), "mllm_calls", 1),
        (Budget(mllm_calls=2), "mllm_calls", 1),
        (Budget(seconds=0), "seconds", 0),
    ],
)
def test_every_limit_stops_the_loop_by_name(
    tmp_path: Path, budget: Budget, limit: str, pictures: int
) -> None:
    output = run(make_context(tmp_path, Critic("finch"), HITS), budget=budget)
    assert (ended(output).ending, ended(output).limit) == ("stopped", limit)
    assert len(output.attempts) == pictures
    assert (ended(output).best is not None) is (pictures > 0)


def test_a_picture_that_takes_too_long_is_left_unfinished(tmp_path: Path) -> None:
    from time import sleep

    context = make_context(tmp_path, Critic("finch"), HITS, on_step=lambda *_: sleep(0.05))
    output = run(context, budget=Budget(seconds=0.1))
    assert (ended(output).limit, output.attempts) == ("seconds", [])


def test_an_unjudged_picture_is_never_accepted(tmp_path: Path) -> None:
    context = make_context(tmp_path, Critic("finch", finch=0), HITS)
    outcome = ended(run(context, budget=Budget(mllm_calls=1)))
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


def test_a_critic_that_skips_a_concept_gives_no_verdict_and_no_yes(tmp_path: Path) -> None:
    def skips(schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
        return (
            decomposition("finch", "coupe")
            if schema == "Decomposition"
            else rows({"concepts": card["concepts"][:1]}, lambda _: True)
        )

    output = run(make_context(tmp_path, skips, HITS))
    assert ended(output).ending == "stopped"
    rows_seen = [row for one in output.attempts if one.ledger for row in one.ledger.rows]
    assert {row.status for row in rows_seen} == {"unsure"}
    assert all("must have the rows" in row.evidence for row in rows_seen)


def test_what_pictures_cost_counts_against_the_budget(tmp_path: Path) -> None:
    context = make_context(tmp_path, Critic("finch"), HITS, PaidGenerator())
    output = run(context, budget=Budget(attempts=9, usd=0.07))
    assert (ended(output).ending, ended(output).limit) == ("stopped", "usd")
    assert len(output.attempts) == 2
    assert sum(one.usd for one in output.usage) == pytest.approx(0.08)


def test_a_second_question_is_not_put_beyond_the_budget(tmp_path: Path) -> None:
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
    assert {type(value) for value in values.values()} <= {str, int, list, dict}
    sizes = [len(blob[1]) for blob in saver.blobs.values()]
    assert max(sizes) < 64 * 1024


def test_the_same_seed_gives_the_same_pictures(tmp_path: Path) -> None:
    def pictures(folder: str, seed: int) -> list[str]:
        output = run(make_context(tmp_path / folder, Critic("finch", finch=9), HITS), seed=seed)
        return [attempt.picture.sha256 for attempt in output.attempts]

    assert pictures("a", 7) == pictures("b", 7) != pictures("c", 8)


BOX = [0.0, 0.0, 0.5, 0.5]


def boxed(critic: Critic) -> Any:
    """Let a critic say where what it misses would be."""

    def policy(schema: str, card: dict[str, Any], images: int) -> dict[str, Any] | str:
        answer = critic(schema, card, images)
        for row in answer.get("rows", []) if isinstance(answer, dict) else []:
            row |= {"box": BOX} if row["status"] == "missing" else {}
        return answer

    return policy


def test_the_box_of_what_is_missing_is_painted_into_the_best_picture(tmp_path: Path) -> None:
    generator = SquareGenerator(inpaint_slots=1)
    critic = boxed(Critic("finch", "coupe", coupe=0, finch=2))
    output = run(make_context(tmp_path, critic, HITS, generator))
    assert ended(output).ending == "accepted"
    draft, *painted = output.attempts
    assert [[one.action for one in attempt.repairs] for attempt in painted] == [["inpaint"], ["inpaint"]]
    for attempt in painted:
        assert attempt.request.inpaint is not None
        assert (attempt.request.inpaint.concept, attempt.request.inpaint.picture) == ("finch", draft.picture)
        assert attempt.request.inpaint.box == tuple(BOX)
    assert [[one.hit.id for one in sent.references] for sent in generator.requests] == [
        [],
        ["finch.png"],
        ["finch-2.png"],
    ]


def test_with_two_missing_the_whole_is_drawn_and_the_one_left_is_painted_in(tmp_path: Path) -> None:
    generator = SquareGenerator(slots=1, inpaint_slots=1)
    critic = boxed(Critic("finch", "coupe", coupe=1, finch=2))
    output = run(
        make_context(tmp_path, critic, {"coupe": HITS["coupe"], "finch": HITS["finch"][1:]}, generator)
    )
    _, whole, painted = generator.requests
    assert [one.hit.id for one in whole.references] == ["coupe.png"] and whole.inpaint is None
    # the reference of what is kept stays, and takes no slot from the one that is painted in
    assert [one.concept for one in painted.references] == ["finch", "coupe"]
    assert painted.inpaint is not None and painted.inpaint.picture == output.attempts[1].picture
    assert ended(output).ending == "accepted"


def test_without_a_fit_in_the_library_the_box_is_painted_by_words(tmp_path: Path) -> None:
    generator = SquareGenerator(inpaint_slots=1)
    critic = boxed(Critic("finch", "coupe", coupe=0, finch=2))
    output = run(make_context(tmp_path, critic, HITS, generator, threshold=0.9))
    _, painted, worded = generator.requests
    assert painted.inpaint is not None and painted.references == ()
    assert worded.inpaint is None and worded.prompt == f"{PROMPT} Show the finch."
    assert output.retrievals[0].abstained


def test_a_class_without_slots_looks_nothing_up_for_a_box(tmp_path: Path) -> None:
    generator = SquareGenerator(slots=0, inpaint_slots=0)
    output = run(make_context(tmp_path, boxed(Critic("finch", "coupe", coupe=0, finch=1)), HITS, generator))
    assert output.retrievals == []
    assert (
        generator.requests[1].inpaint is not None
        and generator.requests[1].seed != output.attempts[0].request.seed
    )
