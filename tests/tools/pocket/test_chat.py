import base64
import io
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from PIL import Image
from pydantic import BaseModel

from pleinair.tools.decompose import decompose
from pleinair.tools.mllm.ask import ask, human_message
from pleinair.tools.mllm.schemas import (
    Captions,
    Critique,
    Decision,
    Decomposition,
    MissingConcepts,
    Ranking,
    Rephrasing,
)
from pleinair.tools.pocket.catalogue.language import reading
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.pocket.chat import ANSWERS, PocketChat, describe_place
from pleinair.tools.pocket.chat_payload import read_payload
from pleinair.tools.pocket.detector import Detection
from pleinair.tools.types import BadInput, Refused

FENCED = [
    "a ```json\n{}\n``` sign",
    '```json\n{"prompt": 1}\n```',
    "{an albatross} ```",
    "```",
    "}```json{",
    "`{{}}`",
]


class FakeDetector:
    """Concept detector with a set probability for each phrase, .5 by default."""

    def __init__(self, **probabilities: float) -> None:
        self.probabilities = {name.replace("_", " "): p for name, p in probabilities.items()}

    def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        box = (0.0, 0.0, 0.3, 0.3)
        return [Detection(self.probabilities.get(phrase, 0.5), box) for phrase in phrases]


def chat(detector: FakeDetector | None = None, **fields: Any) -> PocketChat:
    model = PocketChat(**fields)
    if detector is not None:
        model._loaded = detector  # type: ignore[assignment]
    return model


def png(colour: str = "red", side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def human(payload: dict[str, Any], *images: bytes) -> HumanMessage:
    blocks: list[str | dict[Any, Any]] = [{"type": "text", "text": f"```json\n{json.dumps(payload)}\n```"}]
    blocks += [
        {"type": "image", "base64": base64.b64encode(image).decode(), "mime_type": "image/png"}
        for image in images
    ]
    return HumanMessage(blocks)


def test_a_prompt_becomes_its_subjects_in_order() -> None:
    concepts, usage = decompose("Paint a barn owl above a blue jay on snow", model=chat())
    assert [concept.name for concept in concepts] == ["barn owl", "blue jay"]
    assert concepts[1].caption == "a blue jay"
    assert usage.mllm_calls == 1
    assert usage.tokens > 20


def test_a_subject_named_twice_is_one_concept() -> None:
    concepts, _ = decompose("a barn owl beside a barn owl", model=chat())
    assert [concept.name for concept in concepts] == ["barn owl"]


@pytest.mark.parametrize(
    "prompt",
    [
        "three finches riding a bicycle by the sea",
        "a cat and a dog and a bird",
        "a robin with a very long hat",
    ],
)
def test_a_prompt_outside_the_world_is_refused_in_words(prompt: str) -> None:
    with pytest.raises(Refused, match=r"I cannot (draw|show) .* I read prompts by rules") as refusal:
        ask(chat(), Decomposition, "", {"prompt": prompt})
    assert not [schema for schema in ANSWERS if schema in str(refusal.value)]


def test_the_world_of_invented_names_is_read_by_its_grammar() -> None:
    (concept,), _ = decompose("a velmora finch on snow", model=chat(world="invented"))
    assert concept.name == "velmora finch"
    with pytest.raises(Refused, match="cannot read this prompt: .*one or two subjects"):
        decompose("a hoopoe on a bicycle", model=chat(world="invented"))


def test_a_critique_has_a_row_for_every_concept_in_order() -> None:
    detector = FakeDetector(blue_jay=0.03, barn_owl=0.98, red_car=0.5)
    names = ["barn owl", "red car", "blue jay"]
    answer, _ = ask(chat(detector), Critique, "", {"prompt": "…", "concepts": names}, [png()])
    assert [row.concept for row in answer.rows] == names
    assert [row.status for row in answer.rows] == ["present", "unsure", "missing"]
    assert [row.confidence for row in answer.rows] == pytest.approx([0.98, 0.5, 0.97])
    assert answer.rows[0].evidence == "seen at top left"
    assert [row.evidence for row in answer.rows[1:]] == ["perhaps seen at top left", "not found"]
    assert answer.rows[0].box == (0, 0, 0.3, 0.3)


def test_the_thresholds_are_fields() -> None:
    answer, _ = ask(
        chat(FakeDetector(barn_owl=0.6), present_at=0.55),
        Critique,
        "",
        {"concepts": ["barn owl"]},
        [png()],
    )
    assert answer.rows[0].status == "present"


@pytest.mark.parametrize(("p", "match"), [(0.9, True), (0.5, False), (0.1, False)])
def test_a_decision_needs_every_subject(p: float, match: bool) -> None:
    model = chat(FakeDetector(barn_owl=0.95, blue_jay=p))
    answer, _ = ask(model, Decision, "", {"prompt": "a barn owl and a blue jay"}, [png()])
    assert answer.match is match
    assert "blue jay" in answer.why


def test_missing_concepts_are_those_not_present() -> None:
    model, payload = chat(FakeDetector(barn_owl=0.95)), {"prompt": "a barn owl and a blue jay"}
    with_image, _ = ask(model, MissingConcepts, "", payload, [png()])
    without_image, _ = ask(model, MissingConcepts, "", payload)
    assert with_image.concepts == ("blue jay",)
    assert without_image.concepts == ("barn owl", "blue jay")


class RedDetector(FakeDetector):
    """Concept detector whose probabilities are multiplied by the image's red level."""

    def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        red = image.getpixel((0, 0))[0] / 255  # type: ignore[index]
        return [Detection(red * self.probabilities.get(phrase, 1.0), None) for phrase in phrases]


def reds(*levels: int) -> list[bytes]:
    return [png(f"rgb({level}, 0, 0)") for level in levels]


def test_a_ranking_is_by_probability_and_leaves_out_absent_images() -> None:
    pictures = reds(120, 20, 250, 200)
    answer, usage = ask(chat(RedDetector()), Ranking, "", {"text": "a photo of a barn owl"}, pictures)
    assert answer.order == (3, 4, 1)
    assert usage.mllm_calls == 1
    strict, _ = ask(chat(RedDetector(), missing_at=0.9), Ranking, "", {"text": "barn owl"}, pictures)
    assert strict.order == (3,)


@pytest.mark.parametrize(
    "text", ["a barn owl beside a blue jay", "a photo of a barn owl\na photo of a blue jay"]
)
def test_a_ranking_needs_every_subject_of_the_text(text: str) -> None:
    detector = RedDetector(blue_jay=0.4)
    answer, _ = ask(chat(detector), Ranking, "", {"text": text}, reds(255, 180))
    assert answer.order == (1,)


def test_a_ranking_is_stable_and_may_be_empty() -> None:
    equal, _ = ask(chat(RedDetector()), Ranking, "", {"text": "a barn owl"}, reds(200, 200))
    empty, _ = ask(chat(RedDetector()), Ranking, "", {"text": "a barn owl"}, reds(9, 0))
    assert (equal.order, empty.order) == ((1, 2), ())


def test_a_ranking_by_text_outside_the_world_is_refused() -> None:
    for text in ("a cat and a dog and a bird", ""):
        with pytest.raises(Refused, match="that I can draw|cannot draw a cat"):
            ask(chat(RedDetector()), Ranking, "", {"text": text}, reds(200))


def test_each_concept_gets_a_caption() -> None:
    answer, _ = ask(chat(), Captions, "", {"concepts": ["barn owl", "orange car"]})
    assert [caption.caption for caption in answer.captions] == [
        "a photo of a barn owl",
        "a photo of an orange car",
    ]


def test_each_sets_the_number_of_captions() -> None:
    answer, _ = ask(chat(), Captions, "", {"concepts": ["barn owl"], "each": 2})
    assert [caption.caption for caption in answer.captions] == [
        "a photo of a barn owl",
        "a picture of a barn owl",
    ]


def test_at_most_limits_the_missing_concepts() -> None:
    payload = {"prompt": "a barn owl and a blue jay", "at_most": 1}
    assert ask(chat(), MissingConcepts, "", payload)[0].concepts == ("barn owl",)


def test_a_rephrasing_means_the_same() -> None:
    prompt = "a barn owl above a blue jay on snow"
    answer, _ = ask(chat(), Rephrasing, "", {"prompt": prompt})
    assert reading.read(answer.prompt).request == reading.read(prompt).request
    assert answer.prompt != prompt
    assert ask(chat(), Rephrasing, "", {"prompt": prompt})[0] == answer


def test_the_last_payload_and_the_newest_image_are_answered() -> None:
    class BlueDetector(FakeDetector):
        def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
            return [Detection(1.0 if image.getpixel((0, 0)) == (0, 0, 255) else 0.0) for _ in phrases]

    turns: list[BaseMessage] = [
        SystemMessage("Look."),
        human({"prompt": "a barn owl"}, png("red"), png("blue")),
        AIMessage("No."),
        human({"prompt": "a blue jay"}),
    ]
    answer = chat(BlueDetector()).with_structured_output(Decision).invoke(turns)
    assert isinstance(answer, Decision)
    assert answer.match
    assert "blue jay" in answer.why


def test_the_error_rate_inverts_detections_repeatably() -> None:
    names = [s.name for s in SPECIES]
    payload = {"concepts": names[:40]}

    def statuses(rate: float, seed: int, picture: bytes) -> list[str]:
        model = chat(FakeDetector(**{name.replace(" ", "_"): 0.95 for name in names}))
        model.error_rate, model.error_seed = rate, seed
        return [row.status for row in ask(model, Critique, "", payload, [picture])[0].rows]

    assert statuses(0, 0, png()) == ["present"] * 40
    assert statuses(1, 0, png()) == ["missing"] * 40
    mixed = statuses(0.3, 0, png())
    assert 4 <= mixed.count("missing") <= 20
    assert statuses(0.3, 0, png()) == mixed
    assert statuses(0.3, 1, png()) != mixed
    assert statuses(0.3, 0, png("blue")) != mixed


def test_tokens_are_words_and_patches() -> None:
    small, large = (
        ask(chat(FakeDetector()), Decision, "one two", {"prompt": "a barn owl"}, [png(side=side)])[1].tokens
        for side in (64, 128)
    )
    assert large - small == 64 - 16


def test_an_unknown_tool_is_refused() -> None:
    class Poem(BaseModel):
        """Write a poem."""

        text: str

    with pytest.raises(BadInput, match="cannot answer Poem; bind exactly one of Decomposition, Critique"):
        chat().with_structured_output(Poem).invoke([human({"prompt": "a barn owl"})])


def test_without_a_tool_it_describes_itself() -> None:
    answer = chat().invoke("Hello")
    assert "I read prompts by rules" in answer.text
    assert not answer.tool_calls


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (HumanMessage("no payload"), "exactly one ```json object"),
        (HumanMessage('```json\n{"a": 1}\n``` ```json\n{"b": 2}\n```'), "exactly one"),
        (HumanMessage("```json\nnonsense\n```"), "not valid JSON"),
        (HumanMessage("```json\n[1]\n```"), "must be a JSON object"),
        (HumanMessage('```json\n{"other": 1}\n```'), "no 'prompt'; it has other"),
        (HumanMessage('```json\n{"prompt": "a barn owl"}\n```'), "needs an image"),
        (human({"prompt": "a barn owl"}, b"junk"), "no image that Pillow reads"),
    ],
)
def test_a_malformed_call_is_refused(message: BaseMessage, error: str) -> None:
    with pytest.raises(BadInput, match=error):
        chat(FakeDetector()).with_structured_output(Decision).invoke([message])


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0.0, 0.0, 0.2, 0.2), "top left"),
        ((0.6, 0.3, 0.9, 0.7), "right"),
        ((0.3, 0.7, 0.7, 1.0), "bottom"),
        ((0.1, 0.1, 0.9, 0.9), "the centre"),
    ],
)
def test_a_place_is_described(box: tuple[float, float, float, float], place: str) -> None:
    assert describe_place(box) == place


def test_the_shipped_detector_finds_the_subjects_of_a_scene() -> None:
    subjects = [Subject(BY_NAME[name]) for name in ("scarlet ibis", "sunflower")]
    buffer = io.BytesIO()
    render(place_scene(random.Random(1), subjects, ["left of"], background="meadow")).save(buffer, "PNG")
    names = ["sunflower", "barn owl", "scarlet ibis"]
    answer, _ = ask(chat(), Critique, "", {"concepts": names}, [buffer.getvalue()])
    assert [row.status for row in answer.rows] == ["present", "missing", "present"]
    assert answer.rows[0].evidence.endswith("at right")


@pytest.mark.parametrize("prompt", FENCED)
def test_a_fence_or_braces_in_a_prompt_are_part_of_it(prompt: str) -> None:
    message = human_message({"prompt": prompt, "other": ["{}", "```json"]}, [])
    assert read_payload([message])["prompt"] == prompt
    reply = PocketChat().bind_tools([Decomposition]).invoke([message])
    assert "that I can draw" in reply.text or "I cannot draw" in reply.text
