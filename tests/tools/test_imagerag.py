"""ImageRAG's MLLM calls: one conversation, captions paired by name, rising temperatures, templates."""

import re
from typing import Any

import pytest
from langchain_core.messages import SystemMessage
from support.fake_engines import ScriptedChat
from support.recording_chat import ImageRAGAnswers, RecordingChat, answers_of, images_of, payloads, recording

from pleinair.tools.imagerag import (
    CAPTION,
    DECIDE,
    DECIDE_EDIT,
    MISSING,
    NEEDED,
    REPHRASE,
    Conversation,
    ImageRAGOptions,
    augment,
    decide,
    list_concepts,
    merge,
    rephrase,
    write_captions,
)
from pleinair.tools.mllm.ask import ask, with_temperature
from pleinair.tools.mllm.schemas import Captions, Decision, MissingConcepts
from pleinair.tools.types import Hit, ModelFault, Refused, Retrieval

NO = Decision(match=False, why="No, there is no finch, yes, only a coupe.")


def conversation(model: RecordingChat, **fields: Any) -> Conversation:
    defaults: dict[str, Any] = {"model": model, "prompt": "a finch", "newest": b"png", "slots": 3}
    return Conversation(**defaults | fields)


def captioned(model: RecordingChat, *missing: str, each: int = 1) -> dict[str, str]:
    concepts, _ = write_captions(conversation(model, decision=NO, missing=missing), each)
    return {concept.name: concept.caption for concept in concepts}


def test_the_three_calls_share_one_conversation() -> None:
    model = recording(ImageRAGAnswers("finch"))
    captioned(model, "finch")
    sent = model.conversation("Captions")
    assert [type(message) for message in sent[:1]] == [SystemMessage]
    assert [payload["question"] for payload in payloads(sent)][:2] == [DECIDE, MISSING]
    assert payloads(sent)[2]["concepts"] == ["finch"]
    assert answers_of(sent) == [NO.model_dump(), {"concepts": ["finch"]}]
    assert images_of(sent) == [[b"png"], [], []]  # the image is sent once, with the decision


def test_the_instruction_is_the_same_in_every_call() -> None:
    model = recording(ImageRAGAnswers("finch"))
    decide(conversation(model))
    list_concepts(conversation(model, decision=NO))
    captioned(model, "finch")
    first, second, third = (messages for _, _, messages in model.calls)
    assert first[0] == second[0] == third[0]
    assert first[1] == second[1] == third[1]


def test_without_a_decision_the_images_are_sent_with_the_list() -> None:
    model = recording(ImageRAGAnswers("finch"))
    list_concepts(conversation(model, newest=None, inputs=(b"mine",)))
    sent = model.conversation("MissingConcepts")
    assert (payloads(sent)[0]["question"], images_of(sent)) == (NEEDED, [[b"mine"]])


def test_with_input_images_the_decision_is_about_the_edit() -> None:
    model = recording(ImageRAGAnswers())
    decide(conversation(model, inputs=(b"mine",)))
    sent = model.conversation("Decision")
    assert (payloads(sent)[0]["question"], images_of(sent)) == (DECIDE_EDIT, [[b"mine", b"png"]])


@pytest.mark.parametrize(
    ("question", "points"),
    [
        (DECIDE, ("match the prompt", "in content and in style", "both must match")),
        (
            DECIDE_EDIT,
            ("the user's own", "what the prompt asks", "in content and in style", "both must match"),
        ),
        (MISSING, ("the image lacks", "objects, attributes and styles", "at_most", "example")),
        (NEEDED, ("no image yet", "objects, attributes and styles", "at_most", "example")),
        (
            CAPTION,
            (
                "this concept only",
                "stand alone",
                "knows neither the image nor the prompt",
                "`each`",
                "a style",
            ),
        ),
        (REPHRASE, ("describe rare words", "do not change the meaning")),
    ],
)
def test_a_question_asks_what_the_authors_asks(question: str, points: tuple[str, ...]) -> None:
    missing = [point for point in points if point not in question.casefold()]
    assert not missing, question


def test_the_worked_example_of_a_list_is_no_part_of_the_authors_program() -> None:
    """Theirs has a sheep and a car in an oil painting, and an elephant with a ball."""
    for question in (MISSING, NEEDED):
        assert {"heron", "charcoal drawing"} <= set(re.findall(r"'([^']+)'", question))


@pytest.mark.parametrize("match", [True, False])
def test_the_decision_is_the_field_and_not_its_words(match: bool) -> None:
    model = recording(ImageRAGAnswers(Decision=[{"match": match, "why": NO.why}]))
    assert decide(conversation(model))[0].match is match


def test_only_the_list_is_asked_for_at_another_temperature_than_0() -> None:
    model = recording(ImageRAGAnswers("finch"))
    decide(conversation(model))
    rephrase(conversation(model, decision=NO))
    captioned(model, "finch")
    assert [*map(model.temperatures, ("Decision", "Rephrasing", "Captions"))] == [[0], [0], [0]]


def test_prose_is_not_a_decision() -> None:
    with pytest.raises(Refused, match="I cannot say yes"):
        decide(conversation(recording(ImageRAGAnswers(Decision=["I cannot say yes."]))))


@pytest.mark.parametrize("failure", ["I can't.", "unable", "", {"concepts": []}, {"concepts": [" ", ""]}])
def test_a_failed_list_is_repeated_at_a_higher_temperature(failure: Any) -> None:
    model = recording(ImageRAGAnswers("finch", MissingConcepts=[failure, failure, None]))
    names, usage = list_concepts(conversation(model, decision=NO))
    assert names == ["finch"]
    assert model.temperatures("MissingConcepts") == pytest.approx([0, 1 / 3, 2 / 3])
    assert sum(item.mllm_calls for item in usage) == 3


def test_after_three_failures_the_list_is_empty() -> None:
    model = recording(ImageRAGAnswers("finch", MissingConcepts=["", "", "", None]))
    assert list_concepts(conversation(model))[0] == []
    assert len(model.calls) == 3


def test_the_tries_can_be_limited() -> None:
    model = recording(ImageRAGAnswers("finch", MissingConcepts=["", None]))
    assert list_concepts(conversation(model), tries=1)[0] == []


def test_a_concept_may_contain_the_words_of_a_refusal() -> None:
    model = recording(ImageRAGAnswers("a sign that says unable", "can't opener"))
    assert list_concepts(conversation(model))[0] == ["a sign that says unable", "can't opener"]
    assert len(model.calls) == 1


def test_a_malformed_list_is_a_fault_and_not_repeated() -> None:
    model = recording(ImageRAGAnswers(MissingConcepts=[{"concepts": 3}]))
    with pytest.raises(ModelFault):
        list_concepts(conversation(model))
    assert len(model.calls) == 1


def test_a_model_without_temperature_is_called_unchanged() -> None:
    plain = ScriptedChat(policy=lambda *_: {"concepts": ["finch"]})
    assert with_temperature(plain, 0.5) is plain
    assert list_concepts(Conversation(model=plain, prompt="p"))[0] == ["finch"]


def test_the_callers_model_keeps_its_temperature() -> None:
    model = recording(ImageRAGAnswers("finch"))
    assert with_temperature(model, 0.5) is not model
    assert model.temperature is None


def test_no_more_concepts_than_slots_are_requested_or_used() -> None:
    model = recording(ImageRAGAnswers("finch", "coupe", "tulip"))
    assert list_concepts(conversation(model, slots=2))[0] == ["finch", "coupe"]
    assert payloads(model.conversation("MissingConcepts"))[-1]["at_most"] == 2


def test_a_repeated_concept_counts_once_at_its_first_place() -> None:
    model = recording(ImageRAGAnswers("finch", " Coupe ", "FINCH", "tulip"))
    assert list_concepts(conversation(model))[0] == ["finch", "Coupe", "tulip"]


def test_captions_are_paired_by_name_and_not_by_line() -> None:
    captions = {"captions": [{"name": "Coupe ", "caption": "b"}, {"name": "finch", "caption": "a"}]}
    assert captioned(recording(ImageRAGAnswers(Captions=[captions])), "finch", "coupe") == {
        "finch": "a",
        "coupe": "b",
    }


def test_a_caption_of_another_concept_is_ignored_and_a_missing_one_is_the_name() -> None:
    chatter = {"captions": [{"name": "Here are the captions:", "caption": "finch"}]}
    assert captioned(recording(ImageRAGAnswers(Captions=[chatter])), "finch") == {"finch": "finch"}


@pytest.mark.parametrize(
    "caption", ["a dog's bowl", "3.5mm jack plug", "- a dash", '1. "one"', "7", "l" * 999]
)
def test_a_caption_is_not_changed(caption: str) -> None:
    answer = {"captions": [{"name": "x", "caption": caption}]}
    assert captioned(recording(ImageRAGAnswers(Captions=[answer])), "x") == {"x": caption}


@pytest.mark.parametrize(("caption", "expected"), [(" ", "x"), ("two\nlines ", "two lines")])
def test_a_caption_is_one_line_and_never_blank(caption: str, expected: str) -> None:
    answer = {"captions": [{"name": "x", "caption": caption}]}
    assert captioned(recording(ImageRAGAnswers(Captions=[answer])), "x") == {"x": expected}


def test_several_captions_of_a_concept_are_lines_of_one() -> None:
    answer = {"captions": [{"name": name, "caption": f"{name} {n}"} for n in (1, 1, 2, 3) for name in "ab"]}
    model = recording(ImageRAGAnswers(Captions=[answer]))
    assert captioned(model, "a", "b", each=2) == {"a": "a 1\na 2", "b": "b 1\nb 2"}
    assert payloads(model.conversation("Captions"))[-1]["each"] == 2


def test_the_rephrasing_follows_the_image_that_failed() -> None:
    model = recording(ImageRAGAnswers())
    prompt, _ = rephrase(conversation(model, decision=NO))
    assert prompt == "plainly: a finch"
    assert images_of(model.conversation("Rephrasing")) == [[b"png"], []]


@pytest.mark.parametrize("schema", [Decision, MissingConcepts, Captions])
def test_prose_in_a_single_call_is_a_refusal(schema: Any) -> None:
    with pytest.raises(Refused, match="I may not"):
        ask(recording(lambda *_: "I may not."), schema, "", {})


def retrieval(query: str, *ids: str) -> Retrieval:
    hits = tuple(Hit(id=id, score=0.5) for id in ids)
    return Retrieval(concept="a", query=query, hits=hits, abstained=not ids, reason="" if ids else "none")


def test_the_first_hits_of_all_captions_come_before_the_second_ones() -> None:
    merged = merge([retrieval("a 1", "x", "y"), retrieval("a 2"), retrieval("a 3", "z", "x")])
    assert [hit.id for hit in merged.hits] == ["x", "z", "y"]
    assert (merged.query, merged.abstained) == ("a 1\na 2\na 3", False)
    assert (merge([retrieval("a 1"), retrieval("a 2")]).reason, merge([retrieval("a 1")]).query) == (
        "none",
        "a 1",
    )


def test_each_hit_has_the_caption_that_found_it_first() -> None:
    merged = merge([retrieval("a 1", "x", "y"), retrieval("a 2", "z", "x", "w")])
    assert merged.found_by == {"x": "a 1", "z": "a 2", "y": "a 1", "w": "a 2"}
    assert [merged.query_of(hit) for hit in merged.hits] == ["a 1", "a 2", "a 1", "a 2"]
    alone = merge([retrieval("a 1", "x")])
    assert alone.query_of(alone.hits[0]) == "a 1"
    assert "found_by" not in alone.model_dump()


def test_merged_abstentions_name_all_that_licenses_exclude() -> None:
    def excluding(*ids: str) -> Retrieval:
        return Retrieval(concept="a", query="a", hits=(), abstained=True, excluded_by_license=ids)

    assert merge([excluding("x", "y"), excluding("y", "z")]).excluded_by_license == ("x", "y", "z")
    assert merge([excluding("x"), retrieval("a 2", "w")]).excluded_by_license == ()


COUNTED = "According to these {} of a finch: image 2, a coupe: image 3, generate a b"
PLACED = (
    "According to these {} of <img><|image_1|></img>, a finch: <img><|image_2|></img>, "
    "a coupe: <img><|image_3|></img>, generate a b"
)


@pytest.mark.parametrize(
    ("template", "placeholders", "prompt"),
    [
        *(("plain", placeholders, "a b") for placeholders in (False, True)),
        *((kind, False, COUNTED.format(kind)) for kind in ("examples", "images")),
        *((kind, True, PLACED.format(kind)) for kind in ("examples", "images")),
        ("image", False, "According to this image of a finch, generate a b"),
    ],
)
def test_each_template_numbers_the_references_after_the_input_images(
    template: Any, placeholders: bool, prompt: str
) -> None:
    captions = ["a finch.", "a coupe"]
    assert augment(template, "a b", captions, before=1, placeholders=placeholders) == prompt
    assert augment(template, "a b", [], placeholders=placeholders) == "a b"


@pytest.mark.parametrize("name", ["<|image_1|>", "<img><|image_1|></img>"])
def test_an_input_image_that_the_prompt_names_is_not_announced_again(name: str) -> None:
    prompt = augment("images", f"my cat {name}", ["a finch"], before=1, placeholders=True)
    sentence = "According to these images of a finch: <img><|image_2|></img>, generate"
    assert prompt == f"{sentence} my cat {name}"


@pytest.mark.parametrize("options", [{"tries": 4}, {"captions": 0}, {"threshold": 2}, {"mode": "personal"}])
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ImageRAGOptions(**options)


def test_the_defaults_are_the_papers() -> None:
    options = ImageRAGOptions()
    assert (options.mode, options.captions, options.threshold, options.rounds) == ("draft_first", 1, None, 1)
