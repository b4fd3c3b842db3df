"""The catalogue world's language as the pocket chat model asks for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from pleinair.tools.decompose import decompose
from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import Captions, Rephrasing
from pleinair.tools.pocket.catalogue.language.chat import CatalogueLanguage
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.chat_driver import drive
from pleinair.tools.pocket.language import OutsideWorld
from pleinair.tools.types import Refused

CHAT = PocketChat(world="catalogue")
LANGUAGE = CatalogueLanguage()
SCENE = "two puffins on a beach at sunset"
USED = [{"concept": "puffin", "id": "p1"}]


def calls_for(prompt: str, before: str = "") -> dict[str, dict[str, Any]]:
    payload: dict[str, Any] = {
        "prompt": prompt,
        "concepts": [],
        "looked_up": {"puffin": ["p1", "p2"]},
        "vetoed": [],
        "before": {"wish": before, "ending": "accepted", "references": USED} if before else None,
    }
    reply = drive(CHAT, [HumanMessage(f"```json\n{json.dumps(payload)}\n```")])
    return {call["name"]: call["args"] for call in reply.tool_calls}


def test_a_prompt_as_people_type_it_becomes_its_concepts_and_the_generators_words() -> None:
    prompt = "Could you please draw me two Puffins & a red automobile, at the beach in the evening?"
    concepts, _ = decompose(prompt, model=CHAT)
    assert [concept.name for concept in concepts] == ["puffin", "red car"]
    assert LANGUAGE.wording(prompt).prompt == "two puffins and a red car on a beach at sunset"


def test_what_the_world_does_not_have_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(Refused, match=r"cannot draw an osprey; of birds I know, for example, bald eagle"):
        decompose("an osprey over the sea", model=CHAT)


def test_a_change_keeps_the_rest_of_the_scene_and_its_references() -> None:
    calls = calls_for("make it night and add a hoopoe", SCENE)
    wish = str(calls["decompose"]["wish"])
    assert read(wish).request == read("two puffins and a hoopoe on a beach at night").request
    assert calls["generate"]["references"] == USED


def test_another_reference_is_taken_on_request() -> None:
    calls = calls_for("not that puffin", SCENE)
    assert calls["veto"]["ids"] == ["p1"] and calls["generate"]["references"] == []
    assert calls["decompose"]["wish"] == SCENE


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("make it louder", "louder"),
        ("go back to the first one", "undo"),
        ("a green hoopoe", "its own colours"),
    ],
)
def test_a_line_that_cannot_be_done_is_refused_and_nothing_is_generated(line: str, reason: str) -> None:
    calls = calls_for(line, SCENE)
    assert (
        list(calls) == ["finish"] and calls["finish"]["refused"] and reason in str(calls["finish"]["reason"])
    )


def test_captions_and_other_wordings_are_the_worlds_own() -> None:
    answer, _ = ask(CHAT, Captions, "", {"concepts": ["hoopoe", "red car"], "each": 2})
    captions = [concept.caption for concept in answer.captions]
    assert captions[:2] == ["a photo of a hoopoe", "a picture of a hoopoe"] and len(captions) == 4
    other, _ = ask(CHAT, Rephrasing, "", {"prompt": SCENE})
    assert read(other.prompt).request == read(SCENE).request
    assert read(LANGUAGE.caption(["hoopoe", "pug"])).request.mentions[1].name == "pug"


def test_questions_are_answered_and_requests_are_not() -> None:
    assert "hoopoe" in LANGUAGE.answer("Which birds do you know?")
    assert not LANGUAGE.answer("can you draw a hoopoe?") and not LANGUAGE.answer(SCENE)


def test_every_name_is_read_alone() -> None:
    for name in LANGUAGE.names:
        assert [concept.name for concept in LANGUAGE.concepts(name)] == [name]


def test_refusals_are_of_the_common_kind() -> None:
    with pytest.raises(OutsideWorld):
        LANGUAGE.wording("the economic consequences of the peace")
