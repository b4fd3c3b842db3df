import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from PIL import Image
from pydantic import BaseModel

from pleinair.tools.decompose import decompose
from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import (
    Captions,
    Critique,
    Decision,
    Decomposition,
    MissingConcepts,
    Ranking,
    Rephrasing,
)
from pleinair.tools.pocket.chat import ANSWERS, PocketChat
from pleinair.tools.pocket.chat_cards import where
from pleinair.tools.pocket.eyes import Sight
from pleinair.tools.pocket.prompts import parse_prompt
from pleinair.tools.pocket.world import SPECIES, held_out_rng, random_scene, render, species_named
from pleinair.tools.types import BadInput, Refused


class FixedEyes:
    """See each phrase with a given probability, .5 where none is given."""

    def __init__(self, **probabilities: float) -> None:
        self.probabilities = {name.replace("_", " "): p for name, p in probabilities.items()}

    def look(self, image: Image.Image, phrases: Sequence[str]) -> list[Sight]:
        box = (0.0, 0.0, 0.3, 0.3)
        return [Sight(self.probabilities.get(phrase, 0.5), box) for phrase in phrases]


def chat(eyes: FixedEyes | None = None, **fields: Any) -> PocketChat:
    model = PocketChat(**fields)
    if eyes is not None:
        model._loaded = eyes  # type: ignore[assignment]
    return model


def png(colour: str = "red", side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def human(card: dict[str, Any], *images: bytes) -> HumanMessage:
    blocks: list[str | dict[Any, Any]] = [{"type": "text", "text": f"```json\n{json.dumps(card)}\n```"}]
    blocks += [
        {"type": "image", "base64": base64.b64encode(image).decode(), "mime_type": "image/png"}
        for image in images
    ]
    return HumanMessage(blocks)


def test_a_prompt_becomes_its_subjects_in_order() -> None:
    concepts, usage = decompose("Paint a telma wren above a velmora finch on snow", model=chat())
    assert [one.name for one in concepts] == ["telma wren", "velmora finch"]
    assert concepts[1].caption == "a photo of a velmora finch"
    assert usage.mllm_calls == 1
    assert usage.tokens > 20


def test_a_subject_named_twice_is_one_concept() -> None:
    concepts, _ = decompose("a telma wren beside a telma wren", model=chat())
    assert [one.name for one in concepts] == ["telma wren"]


@pytest.mark.parametrize(
    "prompt",
    [
        "three finches riding a bicycle by the sea",
        "a cat and a dog and a bird",
        "a wren with a very long hat",
    ],
)
def test_a_prompt_outside_the_grammar_is_refused_in_words(prompt: str) -> None:
    with pytest.raises(Refused, match=r"cannot read this prompt: .*one or two subjects") as refusal:
        ask(chat(), Decomposition, "", {"prompt": prompt})
    assert not [schema for schema in ANSWERS if schema in str(refusal.value)]


def test_a_critique_has_a_row_for_every_concept_in_order() -> None:
    eyes = FixedEyes(velmora_finch=0.03, telma_wren=0.98, red_car=0.5)
    names = ["telma wren", "red car", "velmora finch"]
    answer, _ = ask(chat(eyes), Critique, "", {"prompt": "…", "concepts": names}, [png()])
    assert [row.concept for row in answer.rows] == names
    assert [row.status for row in answer.rows] == ["present", "unsure", "missing"]
    assert [row.confidence for row in answer.rows] == pytest.approx([0.98, 0.5, 0.97])
    assert answer.rows[0].evidence == "seen at top left"
    assert [row.evidence for row in answer.rows[1:]] == ["perhaps seen at top left", "not found"]
    assert answer.rows[0].box == (0, 0, 0.3, 0.3)


def test_the_thresholds_are_fields() -> None:
    answer, _ = ask(
        chat(FixedEyes(telma_wren=0.6), present_at=0.55), Critique, "", {"concepts": ["telma wren"]}, [png()]
    )
    assert answer.rows[0].status == "present"


@pytest.mark.parametrize(("p", "match"), [(0.9, True), (0.5, False), (0.1, False)])
def test_a_decision_wants_every_subject(p: float, match: bool) -> None:
    model = chat(FixedEyes(telma_wren=0.95, velmora_finch=p))
    answer, _ = ask(model, Decision, "", {"prompt": "a telma wren and a velmora finch"}, [png()])
    assert answer.match is match
    assert "velmora finch" in answer.why


def test_missing_concepts_are_those_not_present() -> None:
    model, card = chat(FixedEyes(telma_wren=0.95)), {"prompt": "a telma wren and a velmora finch"}
    seen, _ = ask(model, MissingConcepts, "", card, [png()])
    blind, _ = ask(model, MissingConcepts, "", card)
    assert seen.concepts == ("velmora finch",)
    assert blind.concepts == ("telma wren", "velmora finch")


class ColourEyes(FixedEyes):
    """See a phrase as likely as the picture is red."""

    def look(self, image: Image.Image, phrases: Sequence[str]) -> list[Sight]:
        red = image.getpixel((0, 0))[0] / 255  # type: ignore[index]
        return [Sight(red * self.probabilities.get(phrase, 1.0), None) for phrase in phrases]


def reds(*levels: int) -> list[bytes]:
    return [png(f"rgb({level}, 0, 0)") for level in levels]


def test_a_ranking_is_what_the_eyes_see_and_leaves_out_what_they_do_not() -> None:
    pictures = reds(120, 20, 250, 200)
    answer, usage = ask(chat(ColourEyes()), Ranking, "", {"text": "a photo of a telma wren"}, pictures)
    assert answer.order == (3, 4, 1)
    assert usage.mllm_calls == 1
    sharp, _ = ask(chat(ColourEyes(), missing_at=0.9), Ranking, "", {"text": "telma wren"}, pictures)
    assert sharp.order == (3,)


@pytest.mark.parametrize(
    "text", ["a telma wren beside a velmora finch", "a photo of a telma wren\na photo of a velmora finch"]
)
def test_a_ranking_wants_all_that_the_text_names(text: str) -> None:
    eyes = ColourEyes(velmora_finch=0.4)
    answer, _ = ask(chat(eyes), Ranking, "", {"text": text}, reds(255, 180))
    assert answer.order == (1,)


def test_equals_keep_their_order_and_nothing_seen_is_nothing_named() -> None:
    same, _ = ask(chat(ColourEyes()), Ranking, "", {"text": "a telma wren"}, reds(200, 200))
    none, _ = ask(chat(ColourEyes()), Ranking, "", {"text": "a telma wren"}, reds(9, 0))
    assert (same.order, none.order) == ((1, 2), ())


def test_a_ranking_by_words_outside_the_grammar_is_refused() -> None:
    for text in ("a cat and a dog and a bird", ""):
        with pytest.raises(Refused, match="cannot read"):
            ask(chat(ColourEyes()), Ranking, "", {"text": text}, reds(200))


def test_captions_stand_alone() -> None:
    answer, _ = ask(chat(), Captions, "", {"concepts": ["telma wren", "orange car"]})
    assert [one.caption for one in answer.captions] == ["a photo of a telma wren", "a photo of an orange car"]


def test_as_many_captions_as_asked_for() -> None:
    answer, _ = ask(chat(), Captions, "", {"concepts": ["telma wren"], "each": 2})
    assert [one.caption for one in answer.captions] == [
        "a photo of a telma wren",
        "a picture of a telma wren",
    ]


def test_no_more_missing_concepts_than_asked_for() -> None:
    card = {"prompt": "a telma wren and a velmora finch", "at_most": 1}
    assert ask(chat(), MissingConcepts, "", card)[0].concepts == ("telma wren",)


def test_another_wording_asks_for_the_same() -> None:
    prompt = "a telma wren above a velmora finch on snow"
    answer, _ = ask(chat(), Rephrasing, "", {"prompt": prompt})
    assert parse_prompt(answer.prompt) == parse_prompt(prompt)
    assert ask(chat(), Rephrasing, "", {"prompt": prompt})[0] == answer


def test_a_conversation_is_answered_by_its_last_card_and_newest_picture() -> None:
    class Colour(FixedEyes):
        def look(self, image: Image.Image, phrases: Sequence[str]) -> list[Sight]:
            return [Sight(1.0 if image.getpixel((0, 0)) == (0, 0, 255) else 0.0) for _ in phrases]

    turns: list[BaseMessage] = [
        SystemMessage("Look."),
        human({"prompt": "a telma wren"}, png("red"), png("blue")),
        AIMessage("No."),
        human({"prompt": "a velmora finch"}),
    ]
    answer = chat(Colour()).with_structured_output(Decision).invoke(turns)
    assert isinstance(answer, Decision)
    assert answer.match
    assert "velmora finch" in answer.why


def test_the_error_rate_turns_sights_round_and_is_repeatable() -> None:
    names = [species.name for species in SPECIES]
    card = {"concepts": names[:40]}

    def statuses(rate: float, seed: int, picture: bytes) -> list[str]:
        model = chat(FixedEyes(**{name.replace(" ", "_"): 0.95 for name in names}))
        model.error_rate, model.error_seed = rate, seed
        return [row.status for row in ask(model, Critique, "", card, [picture])[0].rows]

    assert statuses(0, 0, png()) == ["present"] * 40
    assert statuses(1, 0, png()) == ["missing"] * 40
    some = statuses(0.3, 0, png())
    assert 4 <= some.count("missing") <= 20
    assert statuses(0.3, 0, png()) == some
    assert statuses(0.3, 1, png()) != some
    assert statuses(0.3, 0, png("blue")) != some


def test_tokens_are_words_and_patches() -> None:
    small, large = (
        ask(chat(FixedEyes()), Decision, "one two", {"prompt": "a telma wren"}, [png(side=side)])[1].tokens
        for side in (64, 128)
    )
    assert large - small == 64 - 16


def test_an_unknown_tool_is_named() -> None:
    class Poem(BaseModel):
        """Write a poem."""

        text: str

    with pytest.raises(BadInput, match="asked for Poem; it answers one of Decomposition, Critique"):
        chat().with_structured_output(Poem).invoke([human({"prompt": "a telma wren"})])


def test_without_a_tool_it_says_what_it_can_do() -> None:
    answer = chat().invoke("Hello")
    assert "rule-based miniature" in answer.text
    assert not answer.tool_calls


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (HumanMessage("no card"), "exactly one ```json object"),
        (HumanMessage('```json\n{"a": 1}\n``` ```json\n{"b": 2}\n```'), "exactly one"),
        (HumanMessage("```json\nnonsense\n```"), "no JSON"),
        (HumanMessage("```json\n[1]\n```"), "must be a JSON object"),
        (HumanMessage('```json\n{"other": 1}\n```'), "no 'prompt'; it has other"),
        (HumanMessage('```json\n{"prompt": "a telma wren"}\n```'), "needs a picture"),
        (human({"prompt": "a telma wren"}, b"junk"), "no picture that Pillow can read"),
    ],
)
def test_a_malformed_question_is_named(message: BaseMessage, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        chat(FixedEyes()).with_structured_output(Decision).invoke([message])


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0.0, 0.0, 0.2, 0.2), "top left"),
        ((0.6, 0.3, 0.9, 0.7), "right"),
        ((0.3, 0.7, 0.7, 1.0), "bottom"),
        ((0.1, 0.1, 0.9, 0.9), "the centre"),
    ],
)
def test_places_have_names(box: tuple[float, float, float, float], place: str) -> None:
    assert where(box) == place


def test_with_its_own_eyes_it_sees_what_stands_there() -> None:
    shown = [species_named("velmora finch"), species_named("gular aster")]
    buffer = io.BytesIO()
    render(random_scene(held_out_rng(11), shown, relation="left of")).save(buffer, "PNG")
    names = ["gular aster", "telma wren", "velmora finch"]
    answer, _ = ask(chat(), Critique, "", {"concepts": names}, [buffer.getvalue()])
    assert [row.status for row in answer.rows] == ["present", "missing", "present"]
    assert answer.rows[0].evidence.endswith("at right")
