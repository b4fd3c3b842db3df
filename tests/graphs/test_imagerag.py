"""The ImageRAG graph with fake engines: the paper's default, its modes and its switches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from support.fake_engines import ListRetriever, SquareGenerator, call
from support.recording_chat import Answers, ImageRAGAnswers, RecordingChat, images_of, payloads, recording

from pleinair.agent.context import Context
from pleinair.agent.state import Output
from pleinair.graphs.imagerag import builder, graph
from pleinair.tools.imagerag import DECIDE_EDIT, ImageRAGOptions
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.retrieval.compose import alternating
from pleinair.tools.retrieval.lexical import CaptionOrder
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Budget, GenerateRequest, Hit, ModelFault, Picture

PROMPT = "a finch by a coupe"
INPUT = "given with the prompt"  # the source of an input image
FINCH = {"name": "finch", "caption": "a photo of a finch"}
DAWN = {"name": "dawn", "caption": "finch"}
UNCHECKED = "this graph does not check its image"
HITS = {
    "a photo of a finch": [Hit(id="finch.png", score=0.1), Hit(id="finch-2.png", score=0.05)],
    "a photo of a coupe": [Hit(id="coupe.png", score=0.3)],
    "finch": [Hit(id="by-name.png", score=0.2)],
    PROMPT: [Hit(id="by-prompt.png", score=0.2)],
}


class Studio:
    """The graph with fake engines, which record their requests."""

    def __init__(self, folder: Path, answers: Answers, *, slots: int = 2, **options: Any) -> None:
        self.model: RecordingChat = recording(answers)
        self.generator = SquareGenerator(slots)
        self.context = Context(
            model=self.model,
            generator=self.generator,
            retriever=ListRetriever(HITS),
            store=ArtifactStore(folder / "artifacts"),
            threshold=0.9,  # of the loop; ImageRAG has a threshold of its own
            imagerag=ImageRAGOptions(**options),
        )

    def run(self, **fields: Any) -> Output:
        return call(graph, self.context, PROMPT, **fields)

    def end(self, **fields: Any) -> tuple[str, str, int | None]:
        """Run and return the ending, its limit or reason, and the number of the best attempt."""
        outcome = self.run(**fields).outcome
        assert outcome is not None
        return outcome.ending, outcome.limit or outcome.reason, outcome.best.number if outcome.best else None

    def inputs(self, *colours: str) -> list[Picture]:
        return [self.context.store.put(Image.new("RGB", (8, 8), colour)) for colour in colours]

    @property
    def requests(self) -> list[GenerateRequest]:
        return self.generator.requests

    @property
    def used(self) -> list[list[str]]:
        """Return for each image the ids of its references, or the source of an input image."""
        return [
            [reference.hit.source or reference.hit.id for reference in request.references]
            for request in self.requests
        ]


def test_a_matching_draft_is_the_answer(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers(matches=(True,)))
    assert studio.end() == ("accepted", "the draft matches, so nothing was retrieved: as asked", 0)
    assert studio.model.schemas == ["Decision"]
    assert studio.run().retrievals == []


def test_by_default_the_top_hits_are_used_whatever_their_scores_with_the_same_seed(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", "coupe"))
    assert studio.end(seed=7) == ("unchecked", UNCHECKED, 1)
    assert studio.model.schemas == ["Decision", "MissingConcepts", "Captions"]
    assert studio.used == [[], ["finch.png", "coupe.png"]]
    draft, final = studio.requests
    assert final == draft.model_copy(update={"references": final.references})
    assert draft.seed == 7


def test_one_hit_is_retrieved_for_each_caption(tmp_path: Path) -> None:
    output = Studio(tmp_path, ImageRAGAnswers("finch")).run()
    assert [(retrieval.concept, retrieval.query, len(retrieval.hits)) for retrieval in output.retrievals] == [
        ("finch", "a photo of a finch", 1)
    ]
    assert [attempt.action for attempt in output.attempts[1].repairs] == ["add_reference"]


def test_after_three_empty_lists_the_prompt_is_the_caption(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers())
    assert [retrieval.query for retrieval in studio.run().retrievals] == [PROMPT]
    assert studio.model.schemas == ["Decision", *["MissingConcepts"] * 3]
    assert studio.model.temperatures("MissingConcepts") == pytest.approx([0, 1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("budget", "reason", "images"),
    [
        (Budget(attempts=0), "attempts", 0),
        (Budget(attempts=1), "attempts", 1),
        (Budget(mllm_calls=0), "mllm_calls", 1),
        (Budget(mllm_calls=2), "mllm_calls", 1),
        (Budget(seconds=0), "seconds", 0),
    ],
)
def test_every_limit_is_kept_and_reported(tmp_path: Path, budget: Budget, reason: str, images: int) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"))
    assert studio.end(budget=budget) == ("stopped", reason, images - 1 if images else None)
    assert len(studio.requests) == images


def test_a_budget_that_is_just_enough_stops_nothing(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"))
    assert studio.end(budget=Budget(mllm_calls=3)) == ("unchecked", UNCHECKED, 1)


def test_repetitions_leave_mllm_calls_for_the_captions(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", MissingConcepts=["", None]))
    studio.run(budget=Budget(mllm_calls=4))
    assert studio.model.schemas == ["Decision", "MissingConcepts", "MissingConcepts", "Captions"]


@pytest.mark.parametrize("retrieve_by", ["captions", "prompt"])
def test_without_a_decision_nothing_more_is_generated(tmp_path: Path, retrieve_by: str) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), retrieve_by=retrieve_by)
    assert studio.end(budget=Budget(mllm_calls=0)) == ("stopped", "mllm_calls", 0)


@pytest.mark.parametrize("question", ["Decision", "Captions"])
def test_a_refusal_keeps_the_draft(tmp_path: Path, question: str) -> None:
    answers = ImageRAGAnswers("finch")
    answers.scripts[question] = ["I may not."] * 2
    assert Studio(tmp_path, answers).end() == ("refused", "I may not.", 0)


def test_a_library_without_hits_costs_no_second_image(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("dragon"))
    reason = "nothing new to draw from: no image in the library was found"
    assert studio.end() == ("stopped", reason, 0)
    assert len(studio.requests) == 1


def test_at_most_as_many_concepts_as_slots_are_listed(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("coupe", "finch"), slots=1)
    studio.run()
    assert payloads(studio.model.conversation("MissingConcepts"))[-1]["at_most"] == 1
    assert studio.used == [[], ["coupe.png"]]


def test_a_generator_without_slots_generates_once(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), slots=0)
    assert studio.end() == ("stopped", "no slot is free for a reference", 0)


def test_several_captions_fill_the_slots_concept_by_concept(tmp_path: Path) -> None:
    pair = [{"name": "x", "caption": "a photo of a finch"}, {"name": "x", "caption": "finch"}]
    answers = ImageRAGAnswers(
        "x", "coupe", Captions=[{"captions": [*pair, {"name": "coupe", "caption": PROMPT}]}]
    )
    studio = Studio(tmp_path, answers, slots=3, captions=2, template="examples")
    studio.run()
    assert sorted(studio.used[1]) == ["by-name.png", "by-prompt.png", "finch.png"]
    captions = {"finch.png": "a photo of a finch", "by-name.png": "finch", "by-prompt.png": PROMPT}
    told = ", ".join(f"{captions[id]}: image {number}" for number, id in enumerate(studio.used[1], 1))
    assert studio.requests[1].prompt == f"According to these examples of {told}, generate {PROMPT}"


def test_a_reference_of_a_later_round_has_the_caption_that_found_it(tmp_path: Path) -> None:
    pair = [{"name": "x", "caption": "finch"}, {"name": "x", "caption": "a photo of a finch"}]
    answers = ImageRAGAnswers("x", Captions=[{"captions": pair}] * 2)
    studio = Studio(tmp_path, answers, slots=2, captions=2, rounds=2, template="examples")
    studio.run()
    assert studio.used[1:] == [["by-name.png", "finch.png"], ["finch-2.png"]]
    told = [request.prompt.split(", generate")[0] for request in studio.requests[1:]]
    assert told == [
        "According to these examples of finch: image 1, a photo of a finch: image 2",
        "According to these examples of a photo of a finch: image 1",
    ]


def test_references_follow_the_order_of_their_concepts_in_the_prompt(tmp_path: Path) -> None:
    lists: list[Any] = [{"concepts": ["coupe"]}, {"concepts": ["dawn", "finch"]}]
    answers = ImageRAGAnswers(MissingConcepts=lists, Captions=[None, {"captions": [FINCH, DAWN]}])
    studio = Studio(tmp_path, answers, rounds=2, slots=4, template="examples")
    studio.run(pictures=studio.inputs("red"))
    assert studio.used[1:] == [[INPUT, "coupe.png"], [INPUT, "finch.png", "coupe.png", "by-name.png"]]
    instruction = "of a photo of a finch: image 2, a photo of a coupe: image 3, finch: image 4, generate"
    assert instruction in studio.requests[2].prompt


def test_generation_mode_generates_once_from_all_that_is_needed(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", "coupe"), mode="generation")
    assert studio.end(seed=7) == ("unchecked", UNCHECKED, 0)
    assert studio.model.schemas == ["MissingConcepts", "Captions"]
    assert (studio.used, studio.requests[0].seed) == ([["finch.png", "coupe.png"]], 7)


def test_generation_mode_without_hits_has_a_reason(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("dragon"), mode="generation")
    reason = "drawn without a reference: no image in the library was found"
    assert studio.end() == ("stopped", reason, 0)
    assert studio.used == [[]]


@pytest.mark.parametrize(("slots", "used"), [(3, ["finch.png", "coupe.png"]), (2, ["finch.png"])])
def test_input_images_come_first_and_take_slots(tmp_path: Path, slots: int, used: list[str]) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", "coupe"), slots=slots, template="examples")
    studio.run(pictures=studio.inputs("red"))
    assert studio.used == [[INPUT], [INPUT, *used]]
    assert "examples of a photo of a finch: image 2" in studio.requests[1].prompt
    assert studio.requests[0].prompt == PROMPT


def test_generation_mode_starts_from_input_images(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), mode="generation")
    pictures = studio.inputs("red")
    studio.run(pictures=pictures)
    assert studio.used == [[INPUT, "finch.png"]]
    assert images_of(studio.model.conversation("MissingConcepts")) == [
        [studio.context.store.read(pictures[0])]
    ]


def test_input_images_make_the_decision_one_about_an_edit(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"))
    output = studio.run(pictures=studio.inputs("red"))
    messages = studio.model.conversation("Captions")
    store, draft = studio.context.store, output.attempts[0].picture
    assert payloads(messages)[0]["question"] == DECIDE_EDIT
    assert images_of(messages)[0] == [store.read(studio.inputs("red")[0]), store.read(draft)]


def test_input_images_in_every_slot_leave_none_free(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"))
    pictures = studio.inputs("red", "blue")
    assert studio.end(pictures=pictures) == ("stopped", "no slot is free for a reference", 0)


def test_more_input_images_than_slots_are_an_error(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), slots=1)
    with pytest.raises(BadInput, match="takes 1 references, got 2"):
        studio.run(pictures=studio.inputs("red", "blue"))


def test_rephrasing_retrieves_nothing(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), rephrase_only=True)
    output = studio.run()
    assert (studio.model.schemas, output.retrievals) == (["Decision", "Rephrasing"], [])
    assert [request.prompt for request in studio.requests] == [PROMPT, f"plainly: {PROMPT}"]
    assert studio.used == [[], []]


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ({"prompt": PROMPT}, ("stopped", "nothing new to draw from: all was tried", 0)),
        ("I may not.", ("refused", "I may not.", 0)),
    ],
)
def test_an_unchanged_prompt_is_no_new_image(tmp_path: Path, answer: Any, end: Any) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers(Rephrasing=[answer, answer]), rephrase_only=True)
    assert studio.end() == end


@pytest.mark.parametrize(
    ("retrieve_by", "used", "calls"),
    [("concepts", "by-name.png", ["Decision", "MissingConcepts"]), ("prompt", "by-prompt.png", ["Decision"])],
)
def test_the_ablations_make_fewer_calls(
    tmp_path: Path, retrieve_by: str, used: str, calls: list[str]
) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), retrieve_by=retrieve_by)
    studio.run()
    assert (studio.used[1], studio.model.schemas) == ([used], calls)


def test_hits_under_the_threshold_are_not_used(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", "coupe"), threshold=0.2)
    output = studio.run()
    assert studio.used[1] == ["coupe.png"]
    assert [retrieval.abstained for retrieval in output.retrievals] == [True, False]
    assert [attempt.concept for attempt in output.attempts[1].repairs] == ["coupe"]


def test_nothing_above_the_threshold_ends_with_both_numbers(tmp_path: Path) -> None:
    reason = "nothing new to draw from: best match 0.10 is under the threshold 0.20"
    assert Studio(tmp_path, ImageRAGAnswers("finch"), threshold=0.2).end() == ("stopped", reason, 0)


def test_rounds_go_on_until_a_match(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", matches=(False, False, True)), rounds=3)
    assert studio.end() == ("accepted", "the image matches: as asked", 2)
    assert studio.used == [[], ["finch.png"], ["finch-2.png"]]
    assert len({request.seed for request in studio.requests}) == 1


def test_the_last_round_is_looked_at_too(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), rounds=2)
    assert studio.end() == ("stopped", "no match: not yet", 2)
    assert studio.model.schemas.count("Decision") == 3


def test_a_round_uses_no_hit_twice(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("coupe"), rounds=3)
    assert studio.end() == ("stopped", "nothing new to draw from: all was tried", 1)
    assert studio.used == [[], ["coupe.png"]]


@pytest.mark.parametrize(("slots", "last"), [(2, ["finch.png", "coupe.png"]), (1, ["coupe.png"])])
def test_references_of_a_round_stay_while_slots_are_free(tmp_path: Path, slots: int, last: list[str]) -> None:
    lists: list[Any] = [{"concepts": ["finch"]}, {"concepts": ["coupe"]}]
    studio = Studio(tmp_path, ImageRAGAnswers(MissingConcepts=lists), rounds=2, slots=slots)
    studio.run()
    assert studio.used[1:] == [["finch.png"], last]


@pytest.mark.parametrize(
    ("budget", "reason"), [(Budget(attempts=2), "attempts"), (Budget(mllm_calls=6), "mllm_calls")]
)
def test_rounds_keep_the_budget(tmp_path: Path, budget: Budget, reason: str) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"), rounds=5)
    assert studio.end(budget=budget) == ("stopped", reason, 1)


def test_generation_mode_in_rounds_decides_and_then_lists_what_is_missing(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", matches=(False, True)), mode="generation", rounds=2)
    assert studio.end() == ("accepted", "the image matches: as asked", 1)
    calls = ["MissingConcepts", "Captions", "Decision"]
    assert studio.model.schemas == [*calls, *calls]


def test_the_single_image_template_takes_one_reference(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", "coupe"), template="image")
    studio.run()
    assert studio.used[1] == ["finch.png"]
    assert studio.requests[1].prompt == f"According to this image of a photo of a finch, generate {PROMPT}"


def test_a_resumed_run_repeats_no_answered_call(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", Captions=[{"captions": 3}, {"captions": 3}, None]))
    app: Any = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(ModelFault):
        app.invoke({"prompt": PROMPT}, config, context=studio.context)
    app.invoke(None, config, context=studio.context)
    assert studio.model.schemas == ["Decision", "MissingConcepts", *["Captions"] * 3]
    assert len(studio.requests) == 2


def test_the_checkpoint_holds_plain_json_without_images(tmp_path: Path) -> None:
    studio, saver = Studio(tmp_path, ImageRAGAnswers("finch")), InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    values = {"prompt": PROMPT, "pictures": [picture.model_dump() for picture in studio.inputs("red")]}
    app: Any = builder.compile(checkpointer=saver)
    app.invoke(values, config, context=studio.context)
    values = app.get_state(config).values
    assert {type(value) for value in values.values()} <= {str, int, list, dict}
    assert values["decision"] == {"match": False, "why": "not yet"}
    assert max(len(blob[1]) for blob in saver.blobs.values()) < 8 * 1024


def test_the_pocket_chat_model_answers_every_call(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers())
    hits = {"a photo of a blue jay": [Hit(id="finch.png", score=0.5)]}
    context = Context(
        model=PocketChat(),
        generator=studio.generator,
        retriever=ListRetriever(hits),
        store=studio.context.store,
        imagerag=ImageRAGOptions(mode="generation"),
    )
    call(graph, context, "a blue jay in the snow")
    assert studio.used == [["finch.png"]]


@pytest.mark.parametrize(
    ("calls", "used", "rankings"), [(None, "finch-2.png", 1), (4, "finch-2.png", 1), (3, "finch.png", 0)]
)
def test_the_model_orders_the_hits_while_calls_are_left(
    tmp_path: Path, calls: int | None, used: str, rankings: int
) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", Ranking=[{"order": [2]}]), rerank=True)
    output = studio.run(budget=Budget(mllm_calls=calls))
    assert (studio.used[1], studio.model.schemas.count("Ranking")) == ([used], rankings)
    assert sum(usage.mllm_calls for usage in output.usage) == 3 + rankings


def shelf(*names: str, **captions: str) -> ListRetriever:
    """Return a library with these hits for the finch's caption, best first."""
    hits = [
        Hit(id=name, score=0.9 - place / 10, caption=captions.get(name, ""))
        for place, name in enumerate(names)
    ]
    return ListRetriever({"a photo of a finch": hits})


def test_the_model_orders_the_three_best_of_either_encoder(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", Ranking=[{"order": [4, 2]}]), rerank=True)
    both = alternating(shelf("a", "b", "c", "d"), shelf("v", "w", "x", "y"))
    studio.context = replace(studio.context, retriever=both)
    output = studio.run()
    assert [hit.id for hit in output.retrievals[0].hits] == ["w", "v", "a", "b", "c", "x"]
    assert studio.used[1] == ["w"]
    (pictures,) = images_of(studio.model.conversation("Ranking"))
    assert len(pictures) == 6


CAPTIONS: list[Any] = [{"caption": "a car"}, {"caption": "a finch on a twig"}, {"caption": "a wren"}]


def test_captions_that_the_model_writes_order_the_hits(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", PictureCaption=[*CAPTIONS]), rerank="captions")
    studio.context = replace(studio.context, retriever=shelf("a", "captioned", "b", "c", captioned="a thing"))
    output = studio.run()
    assert studio.model.schemas[3:] == ["PictureCaption"] * 3  # the fourth has a caption
    assert [hit.id for hit in output.retrievals[0].hits] == ["b", "a", "captioned", "c"]
    assert studio.used[1] == ["b"]
    studio.run()  # the captions are stored
    assert studio.model.schemas.count("PictureCaption") == 3


def test_captions_are_ordered_by_the_caption_that_is_retrieved_by(tmp_path: Path) -> None:
    query = {"captions": [{"name": "bird", "caption": "a photo of a finch"}]}
    studio = Studio(tmp_path, ImageRAGAnswers("bird", Captions=[query]), rerank="captions")
    library = shelf("car", "name", "finch", car="a car", name="a bird", finch="a finch on a twig")
    studio.context = replace(studio.context, retriever=library)
    assert [hit.id for hit in studio.run().retrievals[0].hits] == ["finch", "car", "name"]


def test_captions_keep_to_the_budget_and_order_the_captioned_hits(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch", PictureCaption=[*CAPTIONS]), rerank="captions")
    studio.context = replace(studio.context, retriever=shelf("a", "b", "c"))
    output = studio.run(budget=Budget(mllm_calls=5))
    assert studio.model.schemas[3:] == ["PictureCaption"] * 2
    assert [hit.id for hit in output.retrievals[0].hits] == ["b", "a", "c"]


def test_words_of_captions_order_the_hits_without_a_call(tmp_path: Path) -> None:
    studio = Studio(tmp_path, ImageRAGAnswers("finch"))
    library = shelf("car", "wren", "bird", car="a car", wren="a wren", bird="a finch on a twig")
    studio.context = replace(studio.context, retriever=CaptionOrder(library))
    assert [hit.id for hit in studio.run().retrievals[0].hits] == ["bird"]
    assert studio.used[1] == ["bird"]
    assert "Ranking" not in studio.model.schemas
