"""What the pocket model decides from the card alone."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.chat_driver import drive, is_driving

FINCH, WREN = "velmora finch", "telma wren"
SCENE = "a velmora finch beside a telma wren in the snow"
USED = [{"concept": FINCH, "id": "f1"}, {"concept": WREN, "id": "w1"}]
BEFORE = {"wish": SCENE, "ending": "accepted", "references": USED}
LEFT = {FINCH: ["f1", "f2"], WREN: ["w1"]}


class Sees:
    """See what it is told to see."""

    def __init__(self, **status: str) -> None:
        self.status = {name.replace("_", " "): one for name, one in status.items()}

    def rows(self, png: bytes | None, concepts: Sequence[str]) -> list[dict[str, Any]]:
        return [judged(name, self.status.get(name, "missing")) for name in concepts]


def judged(name: str, status: str, confidence: float = 0.9) -> dict[str, Any]:
    return {"concept": name, "status": status, "confidence": confidence}


def messages(**changes: Any) -> list[BaseMessage]:
    card: dict[str, Any] = {
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
    return [HumanMessage("…"), HumanMessage(f"```json\n{json.dumps(card | changes)}\n```")]


def decided(sees: Sees | None = None, **changes: Any) -> dict[str, Any]:
    """Give the calls by name, with all look-ups in one list."""
    reply = drive(sees or Sees(), messages(**changes))
    made: dict[str, Any] = {call["name"]: call["args"] for call in reply.tool_calls}
    looked = [call["args"]["concept"] for call in reply.tool_calls if call["name"] == "retrieve"]
    return made | {"retrieve": looked}


def looking(**changes: Any) -> dict[str, Any]:
    return {"concepts": [FINCH, WREN], "shown": [0], **changes}


def test_it_drives_where_a_drivers_tools_are_bound() -> None:
    assert is_driving(["decompose", "generate", "critique", "finish"])
    assert not is_driving(["Critique"])
    reply = PocketChat().bind(tools=["decompose", "generate", "critique"]).invoke(messages())
    assert isinstance(reply, AIMessage)
    assert [call["name"] for call in reply.tool_calls] == ["decompose", "generate"]


def test_a_prompt_is_decomposed_and_drawn_in_one_reply() -> None:
    calls = decided()
    assert calls["decompose"]["wish"] == SCENE
    assert [one["name"] for one in calls["decompose"]["concepts"]] == [FINCH, WREN]
    assert calls["generate"] == {"references": [], "repairs": []}


def test_a_prompt_outside_the_grammar_is_refused_at_once() -> None:
    (call,) = drive(Sees(), messages(prompt="three cats on a bicycle")).tool_calls
    assert (call["name"], call["args"]["refused"]) == ("finish", True)
    assert "cannot read this prompt" in call["args"]["reason"]


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ("now make it night", "at night"),
        ("Make it at night now.", "at night"),
        ("under the stars, please", "at night"),
        ("by the sea instead", "by the sea"),
        ("the same in the desert", "in the desert"),
        ("snow", "in the snow"),
        ("now make it louder", ""),
    ],
)
def test_another_place_keeps_the_subjects_and_their_references(asked: str, place: str) -> None:
    calls = decided(prompt=asked, before=BEFORE, looked_up=LEFT)
    if not place:
        assert calls["finish"]["refused"]
        return
    assert calls["decompose"]["wish"] == f"a velmora finch beside a telma wren {place}"
    assert calls["generate"] == {"references": USED, "repairs": []}


@pytest.mark.parametrize(
    ("asked", "vetoed"),
    [
        ("not that finch", ["f1"]),
        ("Not that wren again, please.", ["w1"]),
        ("no, not the velmora finch", ["f1"]),
        ("not that bird", ["f1", "w1"]),
        ("not that one", ["f1", "w1"]),
    ],
)
def test_not_that_is_a_veto_of_what_was_used(asked: str, vetoed: list[str]) -> None:
    calls = decided(prompt=asked, before=BEFORE, looked_up=LEFT)
    assert calls["veto"]["ids"] == vetoed
    assert calls["decompose"]["wish"] == SCENE
    assert calls["generate"]["references"] == [one for one in USED if one["id"] not in vetoed]
    fresh = [one["concept"] for one in calls["generate"]["repairs"]]
    assert fresh == ([FINCH] if "f1" in vetoed else [])  # the wren has no other picture


@pytest.mark.parametrize(
    ("asked", "used", "said"),
    [
        (
            "not that car",
            USED,
            "'car' could mean was used for the last picture, only for velmora finch,",
        ),
        ("not that bird", [], "No reference that 'bird' could mean was used for the last picture, so"),
        ("not that one", [], '"again" draws another one'),
    ],
)
def test_where_no_reference_was_used_it_is_said_and_nothing_is_drawn(
    asked: str, used: list[dict[str, str]], said: str
) -> None:
    (call,) = drive(Sees(), messages(prompt=asked, before=BEFORE | {"references": used})).tool_calls
    assert (call["name"], call["args"]["refused"]) == ("finish", True)
    assert said in call["args"]["reason"] and "cannot read" not in call["args"]["reason"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("make the wren bigger", "'bigger' after 'wren' is not understood"),
        ("add a saverel wren", "cannot read 'add a saverel wren'"),
        ("make two wrens", "not 'two'"),
        ("bigger, please", "cannot read 'bigger, please'"),
        ("make the sky darker", "'sky darker' is no subject that I know"),
        ("brighter colours", "'brighter colours' is no subject that I know"),
        ("now make it louder", "of what was drawn only the place can be changed"),
    ],
)
def test_in_a_talk_what_is_no_request_is_refused_with_what_can_be_changed(asked: str, said: str) -> None:
    (call,) = drive(Sees(), messages(prompt=asked, before=BEFORE)).tool_calls
    assert (call["name"], call["args"]["refused"]) == ("finish", True)
    reason = call["args"]["reason"]
    assert said in reason and 'only the place can be changed, such as "now make it night"' in reason
    assert "write for example" not in reason
    assert '"not that bird"' in reason and "say all that is to be seen" in reason


@pytest.mark.parametrize("asked", ["a red bicycle", "a velmora finch", "an  Orvo beside the red car", "cod"])
def test_in_a_talk_a_whole_prompt_is_drawn_anew(asked: str) -> None:
    assert decided(prompt=asked, before=BEFORE)["decompose"]["wish"] == asked


@pytest.mark.parametrize("asked", ["again", "Once more.", "try again"])
def test_again_draws_the_same_wish(asked: str) -> None:
    calls = decided(prompt=asked, before=BEFORE, looked_up=LEFT)
    assert (calls["decompose"]["wish"], calls["generate"]["references"]) == (SCENE, USED)


def test_a_change_needs_something_before_it() -> None:
    assert decided(prompt="not that bird")["finish"]["refused"]


def test_references_of_other_subjects_and_vetoed_ones_are_left() -> None:
    calls = decided(prompt="a telma wren at night", before=BEFORE, looked_up=LEFT, vetoed=["w1"])
    assert calls["generate"] == {"references": [], "repairs": []}


def test_what_is_missing_is_looked_up_and_drawn_in_the_reply_that_judges() -> None:
    calls = decided(Sees(telma_wren="present"), **looking())
    assert [one["status"] for one in calls["critique"]["rows"]] == ["missing", "present"]
    assert calls["retrieve"] == [FINCH]
    assert [(one["concept"], one["action"]) for one in calls["generate"]["repairs"]] == [
        (FINCH, "add_reference")
    ]


def test_what_was_looked_up_is_swapped_while_there_is_another_one() -> None:
    calls = decided(Sees(), **looking(looked_up={FINCH: ["f2"], WREN: []}))
    assert calls["retrieve"] == []
    assert [one["action"] for one in calls["generate"]["repairs"]] == ["swap_reference", "new_seed"]


def test_without_slots_it_tries_another_seed() -> None:
    calls = decided(Sees(telma_wren="present"), **looking(slots=0))
    assert calls["retrieve"] == []
    assert [one["action"] for one in calls["generate"]["repairs"]] == ["new_seed"]


@pytest.mark.parametrize("left", [0, 1])
def test_it_draws_again_only_where_it_may_and_must(left: int) -> None:
    assert ("generate" in decided(Sees(), **looking(pictures_left=left))) == bool(left)
    done = decided(Sees(telma_wren="present", velmora_finch="present"), **looking())
    assert "generate" not in done


def test_it_repairs_the_best_picture_and_not_the_last() -> None:
    earlier = {"picture": 0, "rows": [judged(FINCH, "present"), judged(WREN, "missing")]}
    calls = decided(Sees(), **looking(shown=[1], judged=[earlier]))
    assert [one["concept"] for one in calls["generate"]["repairs"]] == [WREN]


def test_without_a_new_picture_it_ends() -> None:
    assert "no new picture" in decided(concepts=[FINCH])["finish"]["reason"]


def test_no_two_calls_have_one_id() -> None:
    ids = [
        call["id"]
        for length in range(3)
        for call in drive(Sees(), [HumanMessage("…")] * length + messages()).tool_calls
    ]
    assert len(set(ids)) == len(ids)
