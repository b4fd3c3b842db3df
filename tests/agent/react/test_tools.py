"""The driving model's tools: what they say they take, what they take, and what they do to the state."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as given_values
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from support.fake_engines import SquareGenerator, make_context

from pleinair.agent.context import Context
from pleinair.agent.react import schemas as calls
from pleinair.agent.react import tools as toolbox
from pleinair.agent.react.references import apply_choices
from pleinair.agent.react.state import ReactState, pending, rolled, said, stored
from pleinair.agent.react.tools import TOOLS, objection, tools
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Concept,
    GenerateRequest,
    Hit,
    Ledger,
    Outcome,
    Picture,
    Reference,
    Repair,
    Retrieval,
    Row,
    Usage,
)

FINCH, WREN = "velmora finch", "telma wren"
HITS = {FINCH: [Hit(id="f1", score=0.8), Hit(id="f2", score=0.7)], WREN: [Hit(id="w1", score=0.9)]}
PICTURE = Picture(sha256="0" * 64, width=16, height=16)


def attempt(number: int = 0, *used: str, **status: str) -> Attempt:
    """Make an attempt with references as "concept=id", judged where a status is given."""
    pairs = [one.split("=") for one in used]
    references = [Reference(concept=c, hit=Hit(id=id, score=0.8), picture=PICTURE) for c, id in pairs]
    rows = [Row(concept=name, status=one, confidence=0.9) for name, one in status.items()]  # type: ignore[arg-type]
    request = GenerateRequest(
        prompt="p",
        references=tuple(references),
        height=16,
        width=16,
        num_inference_steps=1,
        guidance_scale=1,
        seed=0,
    )
    ledger = Ledger(rows=tuple(rows)) if rows else None
    return Attempt(number=number, request=request, picture=PICTURE, seconds=0, ledger=ledger)


def state(*attempts: Attempt, **fields: Any) -> ReactState:
    found = [
        Retrieval(concept=name, query=name, hits=tuple(hits), threshold=0.0)
        for name, hits in HITS.items()
        if name not in fields.get("unsought", ())
    ]
    fields.pop("unsought", None)
    concepts = [Concept(name=name, caption=name) for name in HITS]
    defaults: dict[str, Any] = {
        "prompt": "p",
        "concepts": concepts,
        "retrievals": found,
        "attempts": attempts,
    }
    return ReactState(**{**defaults, **fields})


def swap(concept: str) -> Repair:
    return Repair(concept=concept, action="swap_reference")


@pytest.mark.parametrize("tool", tools(), ids=lambda tool: tool.name)
def test_a_tool_tells_all_that_it_takes_and_nothing_of_the_runtime(tool: Any) -> None:
    told = convert_to_openai_tool(tool)["function"]
    assert told["description"] and "  " not in told["description"]
    fields = TOOLS[tool.name][1].model_fields if tool.name in TOOLS else {}
    assert set(told["parameters"]["properties"]) == set(fields)
    assert told["parameters"]["additionalProperties"] is False


def test_the_driver_is_not_its_own_tool() -> None:
    names = [tool.name for tool in tools()]
    assert {"pleinair", "imagerag", "direct"} <= set(names) and toolbox.DRIVER not in names
    assert len(set(names)) == len(names)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(["decompose", "generate", "critique", "retrieve", "pin", "pleinair"]) | st.text()
KEYS = (
    st.sampled_from(["wish", "concepts", "picture", "rows", "prompt", "repairs", "concept", "id"]) | st.text()
)


@given_values(name=NAMES, args=st.dictionaries(KEYS, JSON, max_size=4))
def test_any_call_is_sound_or_told_why_not(name: str, args: dict[str, Any]) -> None:
    wrong = objection({"name": name, "args": args, "id": "1"})
    if not wrong:
        schema = TOOLS[name][1] if name in TOOLS else calls.Whole
        assert schema.model_validate(args).model_dump(include=set(args), mode="json").keys() == args.keys()
    assert isinstance(wrong, str) and len(wrong) < 2000


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"concept": 3}, "concept: Input should be a valid string"),
        ({}, "concept: Field required"),
        ({"concept": "a", "k": 10**12}, "k: Extra inputs are not permitted"),
        ({"concept": ""}, "at least 1 character"),
        ({"concept": "x" * 2001}, "2,001 characters; wanted at most 2,000"),
        ({"concept": "a\x1b[2J"}, "the character '\\x1b'"),
        ({"concept": "a\udc80"}, "the character '\\udc80'"),
        ({"concept": "a\u202eb"}, "the character '\\u202e'"),
        ({"concept": "a", "query": "b\u200b"}, "the character '\\u200b'"),
        ({"concept": "a\ufeff"}, "the character '\\ufeff'"),
        ({"concept": "a\U000e0041"}, "the character '\\U000e0041'"),
        ({"concept": "a", "query": ["b" * 1999] * 11}, "wanted at most 20,000"),
    ],
)
def test_arguments_are_taken_as_they_are_or_not_at_all(args: dict[str, Any], says: str) -> None:
    assert says in objection({"name": "retrieve", "args": args, "id": "1"})


def test_marks_that_scripts_are_written_with_are_taken() -> None:
    for text in ("می\u200cخواهم", "क्\u200dष", "żółw\n\t🐢", "٢"):
        assert objection({"name": "retrieve", "args": {"concept": text}, "id": "1"}) == ""


def test_langgraphs_own_tool_node_runs_them(tmp_path: Path) -> None:
    class Holder(ReactState):
        messages: list[Any] = []

    builder: Any = StateGraph(Holder, context_schema=Context)
    builder.add_node("tools", ToolNode(list(tools())))
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    call = {"name": "retrieve", "args": {"concept": FINCH}, "id": "1", "type": "tool_call"}
    given = {"prompt": "p", "concepts": state().concepts, "messages": [AIMessage("", tool_calls=[call])]}
    out = builder.compile().invoke(given, context=make_context(tmp_path, lambda *_: "", HITS))
    (answer,) = out["messages"]
    assert [hit["id"] for hit in json.loads(answer.content)["hits"]] == ["f1", "f2"]
    assert answer.artifact["retrievals"][0]["concept"] == FINCH


def queries(seen: ReactState) -> dict[str, list[str]]:
    return {one.concept: [hit.id for hit in one.hits] for one in seen.retrievals}


def actions(seen: ReactState) -> dict[str, str]:
    return {one.concept: one.action for one in seen.repairs}


def test_repairs_pass_as_they_are() -> None:
    seen = apply_choices(state(attempt(), wish="w"), [swap(FINCH)], [])
    assert (seen.prompt, actions(seen)) == ("w", {FINCH: "swap_reference"})
    assert queries(seen) == {FINCH: ["f1", "f2"], WREN: ["w1"]}


def test_a_choice_leaves_only_itself_and_asks_for_its_repair() -> None:
    seen = apply_choices(state(), [], [calls.Choice(concept=FINCH, id="f2")])
    assert queries(seen)[FINCH] == ["f2"]
    assert actions(seen) == {FINCH: "add_reference"}
    again = apply_choices(state(attempt(0, f"{FINCH}=f1")), [], [calls.Choice(concept=FINCH, id="f2")])
    assert actions(again) == {FINCH: "swap_reference"}


def test_a_pin_beats_a_choice_and_stays() -> None:
    pins = [calls.Pin(concept=FINCH, hit=HITS[FINCH][0])]
    seen = apply_choices(state(pins=pins), [], [calls.Choice(concept=FINCH, id="f2")])
    assert queries(seen)[FINCH] == ["f1"]
    used = state(attempt(0, f"{FINCH}=f1"), pins=pins)
    assert actions(apply_choices(used, [], [])) == {}
    with pytest.raises(BadInput, match="the user fixed its picture"):
        apply_choices(used, [swap(FINCH)], [])


def test_a_veto_takes_a_picture_out_and_away() -> None:
    seen = apply_choices(state(attempt(0, f"{FINCH}=f1"), vetoes=["f1"]), [], [])
    assert queries(seen)[FINCH] == ["f2"]
    assert actions(seen) == {FINCH: "swap_reference"}
    with pytest.raises(BadInput, match="No picture 'f1'.*there are: f2"):
        apply_choices(state(vetoes=["f1"]), [], [calls.Choice(concept=FINCH, id="f1")])


def test_with_all_vetoed_the_look_up_abstains() -> None:
    seen = apply_choices(state(vetoes=["f1", "f2"]), [swap(FINCH)], [])
    (found,) = [one for one in seen.retrievals if one.concept == FINCH]
    assert (found.hits, found.abstained, found.reason) == ((), True, "all found were vetoed")


def test_the_users_own_picture_comes_without_a_look_up() -> None:
    own = Reference(concept=FINCH, hit=Hit(id="mine", score=1), picture=PICTURE)
    seen = apply_choices(state(unsought=[FINCH], given=[own]), [], [])
    assert queries(seen)[FINCH] == ["mine"]
    assert actions(seen) == {FINCH: "add_reference"}
    assert actions(apply_choices(state(given=[own], concepts=[]), [], [])) == {}


@pytest.mark.parametrize(
    ("before", "repair", "says"),
    [
        (state(), swap("dodo"), "no concept 'dodo'"),
        (state(unsought=[FINCH]), swap(FINCH), "call `retrieve` first"),
        (state(attempt(0, f"{WREN}=w1")), swap(WREN), "every picture found was tried"),
    ],
)
def test_a_repair_that_would_do_nothing_is_refused(before: ReactState, repair: Repair, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        apply_choices(before, [repair], [])


def run(name: str, before: ReactState, folder: Path, **args: Any) -> dict[str, Any]:
    """Call a tool in a graph of one node and give the change of the state."""
    context = make_context(folder, lambda *_: "", HITS, SquareGenerator())
    changes: list[dict[str, Any]] = []

    def node(_: ReactState, runtime: Runtime[Context]) -> dict[str, Any]:
        call = {"name": name, "args": args, "id": "1"}
        changes.append(toolbox.carry_out(call, before, runtime)[1])
        return {}

    builder: Any = StateGraph(ReactState, context_schema=Context)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.compile().invoke({"prompt": "p"}, context=context)
    return changes[0]


def test_a_ledger_is_the_models_rows_for_a_picture_it_saw(tmp_path: Path) -> None:
    rows = [{"concept": name, "status": "present", "confidence": 0.9} for name in HITS]
    update = run("critique", state(attempt(), shown=[0]), tmp_path, picture=0, rows=rows)
    assert [row["status"] for row in update["attempts"][0]["ledger"]["rows"]] == ["present", "present"]
    for wrong, before in (
        ("not shown picture 0", state(attempt())),
        ("was judged before", state(attempt(0, **{FINCH: "missing"}), shown=[0])),
        ("call `decompose` first", state(attempt(), shown=[0], concepts=[])),
    ):
        with pytest.raises(BadInput, match=wrong):
            run("critique", before, tmp_path, picture=0, rows=rows)


def test_no_picture_is_drawn_over_the_limit(tmp_path: Path) -> None:
    full = state(*(attempt(number) for number in range(3)))
    for name in ("generate", "direct"):
        with pytest.raises(BadInput, match="limit on attempts"):
            run(name, full, tmp_path)


def test_no_fresh_question_is_put_over_the_limit(tmp_path: Path) -> None:
    spent = {"budget": {"mllm_calls": 1}, "usage": [Usage(mllm_calls=1)]}
    with pytest.raises(BadInput, match="limit on mllm_calls"):
        run("critique", state(attempt(), **spent), tmp_path, picture=0)
    with pytest.raises(BadInput, match="limit on mllm_calls"):
        run("decompose", state(**spent), tmp_path, wish="w")


def test_vetoes_and_pins_are_kept(tmp_path: Path) -> None:
    pins = [calls.Pin(concept=FINCH, hit=HITS[FINCH][0])]
    update = run("veto", state(vetoes=["x"], pins=pins), tmp_path, ids=["f1"])
    assert (update["vetoes"], update["pins"]) == (["f1", "x"], [])
    update = run("pin", state(pins=pins), tmp_path, concept=FINCH, id="f2")
    assert [one["hit"]["id"] for one in update["pins"]] == ["f2"]
    with pytest.raises(BadInput, match="No picture 'x'"):
        run("pin", state(), tmp_path, concept=FINCH, id="x")


def test_results_are_filed_once_by_the_id_of_their_call() -> None:
    from langchain_core.messages import ToolMessage

    call = {"name": "veto", "args": {}, "id": "a"}
    first = stored(AIMessage("", tool_calls=[call, {**call, "id": "b"}]))
    once = said(first, stored(ToolMessage("one", tool_call_id="a")))
    assert [one["id"] for one in pending(once)] == ["b"]
    assert said(once, stored(ToolMessage("two", tool_call_id="a"))) == once
    assert pending(said(once, stored(ToolMessage("two", tool_call_id="b")))) == []


def test_a_request_that_is_over_is_kept_in_short() -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    call = {"name": "veto", "args": {}, "id": "a"}
    talk = stored(HumanMessage("hi"), AIMessage("", tool_calls=[call]), ToolMessage("x", tool_call_id="a"))
    best = attempt(0, f"{FINCH}=f1")
    ended = Outcome(ending="stopped", limit="attempts", reason="enough", best=best)
    kept = rolled(state(best, messages=talk, outcome=ended, wish="w", vetoes=["v"]))
    assert [one["type"] for one in kept["messages"]] == ["human", "ai"]
    assert json.loads(kept["messages"][1]["data"]["content"])["references"] == [
        {"concept": FINCH, "id": "f1"}
    ]
    assert (kept["turns"][0]["wish"], kept["vetoes"], len(kept["retrievals"])) == ("w", ["v"], 2)
    unfinished = rolled(state(best, messages=talk))
    assert unfinished["turns"][0]["outcome"]["best"]["number"] == 0
