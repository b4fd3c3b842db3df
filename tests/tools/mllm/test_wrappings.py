"""Random wrappings change nothing in a right answer; random damage to its content is never a full verdict."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from support.fake_engines import ScriptedChat

from pleinair.tools.critique import critique
from pleinair.tools.errors import EmptyAnswer, InvalidAnswer
from pleinair.tools.mllm.ask import read_answer
from pleinair.tools.mllm.boxes import Frame
from pleinair.tools.mllm.reading import find
from pleinair.tools.mllm.rows import read_rows
from pleinair.tools.mllm.schemas import Critique, Decision, Decomposition
from pleinair.tools.types import Concept, Refused, Value

Wrap = Callable[[str, str], str]  # of a text and its schema's name


def parse(text: str, schema: type[Value]) -> Any:
    return read_answer({"raw": AIMessage(text)}, schema)


PROSE = st.sampled_from(
    [
        "Here it is:",
        "Sure! I looked {closely}.",
        "It's done",
        "« voilà »",
        "As for [this] one,",
        "100 %",
        "😀",
    ]
)
FENCES: list[Wrap] = [
    lambda text, _: f"```json\n{text}\n```",
    lambda text, _: f"```\n{text}\n```",
    lambda text, _: f"```json {text} ```",
    lambda text, _: f"```JSON\n{text}",
    lambda text, _: f"<answer>{text}</answer>",
    lambda text, _: f"<|begin_of_box|>{text}<|end_of_box|>",
    lambda text, _: f"`{text}`",
]
OBJECTS: list[Wrap] = [
    lambda text, _: f"[{text}]",
    lambda text, name: f'{{"{name}": {text}}}',
    lambda text, name: f'{{"name": "{name}", "arguments": {text}}}',
    lambda text, name: f'{{"name": "functions.{name}", "parameters": {json.dumps(text)}}}',
    lambda text, _: f'{{"answer": {text}, "confidence_overall": 3}}',
    lambda text, _: f'{{"type": "object", "properties": {text}}}',
]
THOUGHTS: list[Wrap] = [
    lambda text, _: f"<think></think>{text}",
    lambda text, _: f'<think>\nMaybe {{"rows": []}}, or {{"concepts": ["x"]}}?\n</think>\n\n{text}',
    lambda text, _: f"I see {{two}} of \"them'</think>{text}",
    lambda text, _: f"[THINK]hm[/THINK]{text}",
    lambda text, _: f"<|channel|>analysis<|message|>hm {{<|end|><|channel|>final<|message|>{text}<|return|>",
    lambda text, _: f"\ufeff\n{text}\n\n",
]


@st.composite
def wrappings(draw: st.DrawFn) -> list[Wrap]:
    """Draw wrappings from the inside out: objects, twice the same, a fence, sentences, thoughts."""
    chosen = draw(st.lists(st.sampled_from(OBJECTS), max_size=2))
    chosen += draw(st.lists(st.sampled_from(FENCES), max_size=1))
    if draw(st.booleans()):
        chosen.append(lambda text, _: f"{text}\n{text}")
    before, after = draw(st.none() | PROSE), draw(st.none() | PROSE)
    chosen.append(lambda text, _: "\n".join(filter(None, (before, text, after))))
    return chosen + draw(st.lists(st.sampled_from(THOUGHTS), max_size=1))


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=20
).filter(lambda text: text == text.strip())
BOXES = st.none() | st.tuples(*[st.integers(0, 400)] * 2, *[st.integers(500, 1000)] * 2).map(
    lambda box: [edge / 1000 for edge in box]
)
ROWS = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["present", "missing", "unsure"]),
        "confidence": st.floats(0, 1),
        "evidence": NAMES,
        "box": BOXES,
        "advice": NAMES,
    }
)
LEDGERS = st.lists(ROWS, min_size=1, max_size=4).map(
    lambda rows: {
        "rows": [{"concept": f"concept {'abcd'[number]}", **row} for number, row in enumerate(rows)]
    }
)
DECOMPOSITIONS = st.lists(
    st.fixed_dictionaries({"name": NAMES, "caption": NAMES}), min_size=1, max_size=4
).map(lambda concepts: {"concepts": concepts})
DECISIONS = st.fixed_dictionaries({"match": st.booleans(), "why": NAMES})
ANSWERS = st.one_of(
    st.tuples(st.just(Critique), LEDGERS),
    st.tuples(st.just(Decomposition), DECOMPOSITIONS),
    st.tuples(st.just(Decision), DECISIONS),
)


@settings(max_examples=80)
@given(ANSWERS, wrappings(), st.booleans(), st.booleans())
def test_any_wrapping_around_a_right_answer_is_read(
    answer: tuple[type[Value], dict[str, Any]], wraps: list[Wrap], python: bool, escaped: bool
) -> None:
    schema, content = answer
    text = repr(content) if python and len(wraps) < 2 else json.dumps(content, ensure_ascii=escaped)
    for wrap in wraps:
        text = wrap(text, schema.__name__)
    assert json.loads(parse(text, schema).model_dump_json()) == content


def _drop(rows: list[Any], number: int) -> None:
    del rows[number]


def _contradict(rows: list[Any], number: int) -> None:
    other = "missing" if rows[number]["status"] != "missing" else "present"
    rows.append({**rows[number], "status": other})


def _rename(rows: list[Any], number: int) -> None:
    rows[number]["concept"] = "something else"


def _spoil(key: str, value: Any) -> Callable[[list[Any], int], None]:
    def spoil(rows: list[Any], number: int) -> None:
        rows[number][key] = value

    return spoil


DAMAGE = st.sampled_from(
    [
        *(_drop, _contradict, _rename, _spoil("status", "maybe not present"), _spoil("status", ["present"])),
        *(_spoil("confidence", value) for value in (7, -0.1, 101, None, "sure", True, "0.9 or so", [1])),
    ]
)


@settings(max_examples=60)
@given(LEDGERS, DAMAGE, st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_damaged_row_is_unsure_and_the_others_count(
    content: dict[str, Any], damage: Callable[[list[Any], int], None], number: int, rng: Any
) -> None:
    rows = content["rows"]
    names = [row["concept"] for row in rows]
    expected = {row["concept"]: row["status"] for row in rows}
    number %= len(rows)
    damage(rows, number)
    rng.shuffle(rows)
    model = ScriptedChat(policy=lambda *_: {"rows": rows})
    concepts = [Concept(name=name, caption=name) for name in names]
    ledger, _ = critique(b"png", "p", concepts, model=model)
    assert [row.concept for row in ledger.rows] == names
    spoilt = ledger.rows[number]
    assert (spoilt.status, spoilt.confidence) == ("unsure", 0) and "no verdict" in spoilt.evidence
    assert {row.concept: row.status for row in ledger.rows if row is not spoilt} == {
        name: status for name, status in expected.items() if name != names[number]
    }


@settings(max_examples=60)
@given(LEDGERS, st.integers(1, 400))
def test_a_ledger_that_is_cut_off_is_no_answer(content: dict[str, Any], missing: int) -> None:
    text = json.dumps(content)
    with pytest.raises((InvalidAnswer, Refused, EmptyAnswer)):
        parse(text[: max(len(text) - missing, 0)], Critique)


EDGES = st.floats(-2000, 2000) | st.integers(-2000, 2000) | st.sampled_from([0, 1, 1000, "none", None])


@settings(max_examples=150)
@given(
    st.lists(st.lists(EDGES, min_size=3, max_size=5), min_size=1, max_size=3),
    st.sampled_from(["auto", "pixels"]),
)
def test_a_box_lies_in_the_image_or_is_none(boxes: list[list[Any]], convention: Any) -> None:
    frame = Frame(convention, (512, 384))
    for box in frame.read([("box", box) for box in boxes]):
        assert box is None or (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 300_000,
        "[" * 300_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"match": true, "why": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '"' * 300_000,
        '{"' * 150_000,
        "{'" * 150_000,
        '{"a\\"' * 100_000,
        "{/*" * 100_000,
        "{ /* " + "*" * 300_000,
        "{," + " " * 300_000 + "x",
        ", ".join(["{}"] * 20_000),
        "```" * 100_000,
        "<think>" * 50_000,
        "</think>" * 50_000,
        "{</think>" * 30_000,
        "<|channel|>final" * 20_000,
        "{'a': 'b', " * 50_000,
        "{a:" * 100_000,
        "<parameter=match>" * 50_000,
        "<arg_key>a" * 50_000,
        "{{" * 100_000,
        '{"data": ' * 7 + '{"a": {}}' + "}" * 7,
    ],
)
def test_hostile_text_is_refused_in_linear_time(text: str) -> None:
    started = time.process_time()
    with pytest.raises((InvalidAnswer, Refused, EmptyAnswer)):
        parse(text, Decision)
    assert time.process_time() - started < 3


def test_the_answer_of_a_call_that_repeats_the_payload_is_a_refusal() -> None:
    payload = {"prompt": "two cats"}
    text = 'I will not draw {"prompt": "two cats"} for you.'
    with pytest.raises(Refused, match="will not draw"):
        find(text, Decision, payload)
    with pytest.raises(InvalidAnswer, match="no field"):
        read_answer({"raw": AIMessage('{"score": 1}')}, Decision)


def test_rows_are_found_by_their_concept_alone() -> None:
    rows, faults = read_rows(
        {"rows": [{"concept": "THE wrens", "status": "yes", "confidence": "1.0", "box": "0.1 0.1 0.9 0.9"}]},
        ["wren", "coupe"],
        Frame(),
    )
    assert (list(rows), faults) == (["wren"], {})
    assert (rows["wren"].status, rows["wren"].box) == ("present", (0.1, 0.1, 0.9, 0.9))
