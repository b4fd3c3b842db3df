"""The pocket chat model as a driver: decisions from the payload alone."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from pleinair.tools.pocket.catalogue.language.chat import CatalogueLanguage
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.chat_driver import drive, is_driving
from pleinair.tools.pocket.language import Language

JAY, OWL = "blue jay", "barn owl"
SCENE = "a blue jay and a barn owl in the snow"
USED = [{"concept": JAY, "id": "j1"}, {"concept": OWL, "id": "o1"}]
BEFORE = {"wish": SCENE, "ending": "accepted", "references": USED}
LEFT = {JAY: ["j1", "j2"], OWL: ["o1"]}


class FakeCritic:
    """Critic with a set status for each concept, "missing" by default."""

    def __init__(self, **status: str) -> None:
        self.status = {name.replace("_", " "): value for name, value in status.items()}

    @property
    def language(self) -> Language:
        return CatalogueLanguage()

    def rows(self, images: Sequence[bytes], concepts: Sequence[str]) -> list[dict[str, Any]]:
        return [row(name, self.status.get(name, "missing")) for name in concepts]


def row(name: str, status: str, confidence: float = 0.9) -> dict[str, Any]:
    return {"concept": name, "status": status, "confidence": confidence}


def messages(**changes: Any) -> list[BaseMessage]:
    payload: dict[str, Any] = {
        "prompt": SCENE,
        "wish": "",
        "concepts": [],
        "shown": [],
        "judged": [],
        "looked_up": {},
        "vetoed": [],
        "before": None,
        "slots": 2,
        "pictures_left": 3,
    }
    return [HumanMessage("…"), HumanMessage(f"```json\n{json.dumps(payload | changes)}\n```")]


def calls_for(critic: FakeCritic | None = None, **changes: Any) -> dict[str, Any]:
    """Return the calls by name, with all retrievals in one list."""
    reply = drive(critic or FakeCritic(), messages(**changes))
    calls: dict[str, Any] = {call["name"]: call["args"] for call in reply.tool_calls}
    retrieved = [call["args"]["concept"] for call in reply.tool_calls if call["name"] == "retrieve"]
    return calls | {"retrieve": retrieved}


def with_image(**changes: Any) -> dict[str, Any]:
    return {"concepts": [JAY, OWL], "shown": [0], **changes}


def test_it_drives_where_a_drivers_tools_are_bound() -> None:
    assert is_driving(["decompose", "generate", "critique", "finish"])
    assert not is_driving(["Critique"])
    reply = PocketChat().bind(tools=["decompose", "generate", "critique"]).invoke(messages())
    assert isinstance(reply, AIMessage)
    assert [call["name"] for call in reply.tool_calls] == ["decompose", "generate"]


def test_a_prompt_is_decomposed_and_generated_in_one_reply() -> None:
    calls = calls_for()
    assert calls["decompose"]["wish"] == SCENE
    assert [concept["name"] for concept in calls["decompose"]["concepts"]] == [JAY, OWL]
    assert calls["generate"] == {"references": [], "repairs": []}


def test_a_prompt_outside_the_world_is_refused_at_once() -> None:
    (call,) = drive(FakeCritic(), messages(prompt="three cats on a bicycle")).tool_calls
    assert (call["name"], call["args"]["refused"]) == ("finish", True)
    assert call["args"]["reason"] == "I cannot draw cats; what comes nearest is dog."


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("now make it night", "in the snow at night"),
        ("Make it at night now.", "in the snow at night"),
        ("under the stars, please", "in the snow at night"),
        ("on the beach instead", "on a beach"),
        ("the same in the desert", "in a desert"),
        ("snow", "in the snow"),
        ("now make it louder", ""),
    ],
)
def test_another_place_keeps_the_subjects_and_their_references(prompt: str, place: str) -> None:
    calls = calls_for(prompt=prompt, before=BEFORE, looked_up=LEFT)
    if not place:
        assert calls["finish"]["refused"]
        return
    assert calls["decompose"]["wish"] == f"a blue jay and a barn owl {place}"
    assert calls["generate"] == {"references": USED, "repairs": []}


@pytest.mark.parametrize(
    ("prompt", "vetoed"),
    [
        ("not that jay", ["j1"]),
        ("Not that owl again, please.", ["o1"]),
        ("no, not the blue jay", ["j1"]),
        ("not that bird", ["j1", "o1"]),
        ("not that one", ["j1", "o1"]),
    ],
)
def test_not_that_vetoes_references_that_were_used(prompt: str, vetoed: list[str]) -> None:
    calls = calls_for(prompt=prompt, before=BEFORE, looked_up=LEFT)
    assert calls["veto"]["ids"] == vetoed
    assert calls["decompose"]["wish"] == SCENE
    assert calls["generate"]["references"] == [ref for ref in USED if ref["id"] not in vetoed]
    repaired = [repair["concept"] for repair in calls["generate"]["repairs"]]
    assert repaired == ([JAY] if "j1" in vetoed else [])  # the owl has no other picture


@pytest.mark.parametrize(
    ("prompt", "used", "reason"),
    [
        ("not that owl", USED[:1], "'barn owl' could mean was used for the last picture, only for blue jay,"),
        ("not that bird", [], "No reference that 'blue jay, barn owl' could mean was used for the last"),
        ("not that one", [], '"again" draws another one'),
    ],
)
def test_a_veto_of_a_reference_that_was_not_used_is_refused(
    prompt: str, used: list[dict[str, str]], reason: str
) -> None:
    (call,) = drive(FakeCritic(), messages(prompt=prompt, before=BEFORE | {"references": used})).tool_calls
    assert (call["name"], call["args"]["refused"]) == ("finish", True)
    assert reason in call["args"]["reason"] and "cannot read" not in call["args"]["reason"]


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ("not that car", 'cannot tell what "car" should change; in the image: blue jay, barn owl'),
        ("bigger, please", "say which should change: blue jay, barn owl"),
        ("make the sky darker", 'cannot show "darker"'),
        ("now make it louder", 'cannot draw "louder"'),
    ],
)
def test_in_a_chat_other_changes_are_refused(prompt: str, fault: str) -> None:
    (call,) = drive(FakeCritic(), messages(prompt=prompt, before=BEFORE)).tool_calls
    assert (call["name"], call["args"]["refused"]) == ("finish", True)
    assert fault in call["args"]["reason"]


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("make the owl bigger", "a blue jay and a big barn owl in the snow"),
        ("add a hoopoe", "a blue jay, a barn owl and a hoopoe in the snow"),
        ("make two owls", "a blue jay and two barn owls in the snow"),
    ],
)
def test_a_change_keeps_what_it_does_not_name(line: str, prompt: str) -> None:
    calls = calls_for(prompt=line, before=BEFORE, looked_up=LEFT)
    assert (calls["decompose"]["wish"], calls["generate"]["references"]) == (prompt, USED)


@pytest.mark.parametrize("prompt", ["a red car", "A blue jay", "a  Hoopoe and a red car"])
def test_in_a_chat_a_complete_prompt_replaces_the_last(prompt: str) -> None:
    wish = " ".join(prompt.lower().split())
    assert calls_for(prompt=prompt, before=BEFORE)["decompose"]["wish"] == wish


@pytest.mark.parametrize("prompt", ["again", "Once more.", "try again"])
def test_again_repeats_the_last_prompt(prompt: str) -> None:
    calls = calls_for(prompt=prompt, before=BEFORE, looked_up=LEFT)
    assert (calls["decompose"]["wish"], calls["generate"]["references"]) == (SCENE, USED)


def test_a_change_needs_an_earlier_image() -> None:
    assert calls_for(prompt="not that bird")["finish"]["refused"]


def test_references_of_other_subjects_and_vetoed_ones_are_not_used() -> None:
    calls = calls_for(prompt="a barn owl at night", before=BEFORE, looked_up=LEFT, vetoed=["o1"])
    assert calls["generate"] == {"references": [], "repairs": []}


def test_one_reply_judges_retrieves_what_is_missing_and_generates() -> None:
    calls = calls_for(FakeCritic(barn_owl="present"), **with_image())
    assert [row["status"] for row in calls["critique"]["rows"]] == ["missing", "present"]
    assert calls["retrieve"] == [JAY]
    assert [(repair["concept"], repair["action"]) for repair in calls["generate"]["repairs"]] == [
        (JAY, "add_reference")
    ]


def test_a_reference_is_swapped_while_another_one_is_left() -> None:
    calls = calls_for(FakeCritic(), **with_image(looked_up={JAY: ["j2"], OWL: []}))
    assert calls["retrieve"] == []
    assert [repair["action"] for repair in calls["generate"]["repairs"]] == ["swap_reference", "new_seed"]


def test_without_slots_it_tries_another_seed() -> None:
    calls = calls_for(FakeCritic(barn_owl="present"), **with_image(slots=0))
    assert calls["retrieve"] == []
    assert [repair["action"] for repair in calls["generate"]["repairs"]] == ["new_seed"]


@pytest.mark.parametrize("budget", [0, 1])
def test_it_generates_again_only_if_something_is_missing_and_the_budget_allows(budget: int) -> None:
    assert ("generate" in calls_for(FakeCritic(), **with_image(pictures_left=budget))) == bool(budget)
    done = calls_for(FakeCritic(barn_owl="present", blue_jay="present"), **with_image())
    assert "generate" not in done


def test_it_repairs_the_best_image_and_not_the_last() -> None:
    judged = {"picture": 0, "rows": [row(JAY, "present"), row(OWL, "missing")]}
    calls = calls_for(FakeCritic(), **with_image(shown=[1], judged=[judged]))
    assert [repair["concept"] for repair in calls["generate"]["repairs"]] == [OWL]


def test_without_a_new_image_it_finishes() -> None:
    judged = {"picture": 0, "rows": [row(JAY, "missing")]}
    calls = calls_for(concepts=[JAY], judged=[judged], looked_up={JAY: []})
    assert "no new picture" in calls["finish"]["reason"]


def test_without_any_image_it_generates_again_while_the_budget_allows() -> None:
    assert "generate" in calls_for(concepts=[JAY])
    assert "finish" in calls_for(concepts=[JAY], pictures_left=0)


def test_a_question_is_answered() -> None:
    calls = calls_for(FakeCritic(), prompt="which dogs do you know?")
    assert "dalmatian" in calls["finish"]["reason"] and "generate" not in calls


def test_call_ids_are_unique() -> None:
    ids = [
        call["id"]
        for length in range(3)
        for call in drive(FakeCritic(), [HumanMessage("…")] * length + messages()).tool_calls
    ]
    assert len(set(ids)) == len(ids)
