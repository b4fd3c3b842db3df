"""Strict reading of a model's JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from pleinair.tools.errors import EmptyAnswer, InvalidAnswer
from pleinair.tools.mllm.ask import UNPRINTABLE, read_answer
from pleinair.tools.mllm.schemas import Critique, Decision
from pleinair.tools.types import Refused, Value

YES = '{"match": true, "why": "as asked"}'


def parse(text: str, schema: type[Value]) -> Any:
    return read_answer({"raw": AIMessage(text)}, schema)


@pytest.mark.parametrize(
    "text",
    [
        *(YES, f"\n {YES} ", f"```json\n{YES}\n```", f"```\n{YES}\n```", f"Sure! {YES}", f"{YES} I hope so."),
        *(f"```json\n{YES}\n```\n```json\n{YES}\n```", "{'match': True, 'why': 'as asked'}"),
        *('{"match": true, "why": "as asked", "sure": true}', '{"match": true, "why": "as\x00 asked"}'),
    ],
)
def test_one_object_is_an_answer_whatever_is_around_it(text: str) -> None:
    assert parse(text, Decision) == Decision(match=True, why="as asked")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (YES + YES.replace("true", "false"), "2 different answers"),
        ('{"match": true, "why": NaN}', "Out of range"),
        ('{"match": -Infinity}', "Out of range"),
        ('{"match": 1e999}', "Out of range"),
        ('{"match": false, "match": true}', "'match' comes twice"),
        ('{"match": "perhaps"}', "match: Input should be a valid boolean"),
        ('{"match": 1}', "match: Input should be a valid boolean"),
        ('{"match": {"type": "boolean"}}', "match: Input should be a valid boolean"),
        ("{}", "no field of match, why"),
        ('{"match": true', "cut off"),
        ('{"a": ' * 20_000 + "1" + "}" * 20_000, "nested too deep"),
        ('{"match": ' + "1" * 5000 + "}", "limit"),
    ],
)
def test_anything_else_is_invalid_and_says_why(text: str, why: str) -> None:
    with pytest.raises(InvalidAnswer, match=r"not a Decision: ") as error:
        parse(text, Decision)
    assert why in str(error.value)
    assert len(error.value.text) <= 2000


def test_values_are_never_clamped() -> None:
    row = {"concept": "finch", "status": "present", "confidence": 10**12}
    with pytest.raises(InvalidAnswer, match="less than or equal to 1"):
        parse(json.dumps({"rows": [row]}), Critique)


def test_prose_is_a_refusal() -> None:
    with pytest.raises(Refused, match="I cannot help"):
        parse("I cannot help with that.", Decision)


@pytest.mark.parametrize(
    "character", ["\ud800", "\x00", "\u202e", "\u2066", "\x1b", "\u200b", "\ufeff", "\U000e0041"]
)
def test_unprintable_characters_are_removed(character: str) -> None:
    answer = parse(json.dumps({"match": True, "why": f"a{character}b"}), Decision)
    assert answer.why == "ab"


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
NAMES = st.sampled_from(["match", "why"]) | st.text()


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.text())
def test_any_text_is_an_answer_or_a_known_error(fields: dict[str, Any], around: str) -> None:
    for text in (json.dumps(fields), around, around + json.dumps({"match": True, "why": around})):
        try:
            assert not UNPRINTABLE.search(parse(text, Decision).why)
        except (InvalidAnswer, EmptyAnswer, Refused):
            pass
