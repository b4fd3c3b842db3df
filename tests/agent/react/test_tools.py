"""Tools of the driving model: schemas, accepted arguments, and updates of the state."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as given_values
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from support.fake_engines import SquareGenerator, make_context

from pleinair.agent.context import Context
from pleinair.agent.react import schemas, tools
from pleinair.agent.react.references import apply_choices
from pleinair.agent.react.state import (
    MOST_REQUESTS,
    ReactState,
    Turn,
    append_messages,
    archive_request,
    pending_calls,
    to_json,
)
from pleinair.agent.react.tools import TOOLS, all_tools, call_fault
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

JAY, OWL = "blue jay", "barn owl"
HITS = {JAY: [Hit(id="f1", score=0.8), Hit(id="f2", score=0.7)], OWL: [Hit(id="w1", score=0.9)]}
PICTURE = Picture(sha256="0" * 64, width=16, height=16)


def attempt(number: int = 0, *used: str, **status: str) -> Attempt:
    """Make an attempt with references as "concept=id", judged where a status is given."""
    pairs = [pair.split("=") for pair in used]
    references = [Reference(concept=c, hit=Hit(id=id, score=0.8), picture=PICTURE) for c, id in pairs]
    rows = [Row(concept=name, status=value, confidence=0.9) for name, value in status.items()]  # type: ignore[arg-type]
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
    unretrieved = fields.pop("unretrieved", ())
    retrievals = [
        Retrieval(concept=name, query=name, hits=tuple(hits), threshold=0.0)
        for name, hits in HITS.items()
        if name not in unretrieved
    ]
    concepts = [Concept(name=name, caption=name) for name in HITS]
    defaults: dict[str, Any] = {
        "prompt": "p",
        "concepts": concepts,
        "retrievals": retrievals,
        "attempts": attempts,
    }
    return ReactState(**{**defaults, **fields})


def swap(concept: str) -> Repair:
    return Repair(concept=concept, action="swap_reference")


@pytest.mark.parametrize("tool", all_tools(), ids=lambda tool: tool.name)
def test_a_schema_has_every_argument_and_nothing_of_the_runtime(tool: Any) -> None:
    function = convert_to_openai_tool(tool)["function"]
    assert function["description"] and "  " not in function["description"]
    fields = TOOLS[tool.name][1].model_fields if tool.name in TOOLS else {}
    assert set(function["parameters"]["properties"]) == set(fields)
    assert function["parameters"]["additionalProperties"] is False


def test_the_react_graph_is_not_its_own_tool() -> None:
    names = [tool.name for tool in all_tools()]
    assert {"pleinair", "imagerag", "direct"} <= set(names) and tools.DRIVER not in names
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
def test_any_call_is_accepted_or_has_a_fault(name: str, args: dict[str, Any]) -> None:
    fault = call_fault({"name": name, "args": args, "id": "1"})
    if not fault:
        schema = TOOLS[name][1] if name in TOOLS else schemas.RunGraph
        schemas.parse_arguments(schema, args)
    assert isinstance(fault, str) and len(fault) < 2000


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        ({"concept": 3}, "concept: Input should be a valid string"),
        ({}, "concept: Field required"),
        ({"concpet": "a"}, "there is no 'concpet'. Did you mean `concept`?"),
        ({"concept": "a", "quary": "b"}, "Did you mean `query`?"),
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
def test_arguments_that_mean_nothing_are_a_fault(args: dict[str, Any], fault: str) -> None:
    assert fault in call_fault({"name": "retrieve", "args": args, "id": "1"})


@pytest.mark.parametrize(
    ("name", "args", "read"),
    [
        ("retrieve", {"concept": "a", "k": 10**12, "thought": "look it up"}, {"concept": "a", "query": ""}),
        ("retrieve", {"Concept": ["a"], "query": None}, {"concept": "a", "query": ""}),
        ("critique", {"picture": "0"}, {"picture": 0, "rows": ()}),
        ("critique", {"image_number": 1, "picture": "picture 1"}, {"picture": 1, "rows": ()}),
        ("decompose", {"wish": "w", "concepts": ["a"]},
         {"wish": "w", "concepts": ({"name": "a", "caption": "a"},)}),
        ("generate", {"repairs": '[{"concept": "a", "action": "Inpaint"}]'},
         {"prompt": "", "references": (), "repairs": ({"concept": "a", "action": "inpaint", "why": ""},)}),
        ("veto", {"ids": "a.png"}, {"ids": ("a.png",)}),
        ("finish", {"reason": "done", "refused": "false"}, {"reason": "done", "refused": False}),
    ],
)  # fmt: skip
def test_the_wrapping_of_arguments_is_tolerated(
    name: str, args: dict[str, Any], read: dict[str, Any]
) -> None:
    assert call_fault({"name": name, "args": args, "id": "1"}) == ""
    assert schemas.parse_arguments(TOOLS[name][1], args).model_dump() == read


def test_joiners_and_other_scripts_are_accepted() -> None:
    for text in ("می\u200cخواهم", "क्\u200dष", "żółw\n\t🐢", "٢"):
        assert call_fault({"name": "retrieve", "args": {"concept": text}, "id": "1"}) == ""


def test_langgraphs_own_tool_node_runs_them(tmp_path: Path) -> None:
    class Holder(ReactState):
        messages: list[Any] = []

    builder: Any = StateGraph(Holder, context_schema=Context)
    builder.add_node("tools", ToolNode(list(all_tools())))
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    call = {"name": "retrieve", "args": {"concept": JAY}, "id": "1", "type": "tool_call"}
    values = {"prompt": "p", "concepts": state().concepts, "messages": [AIMessage("", tool_calls=[call])]}
    out = builder.compile().invoke(values, context=make_context(tmp_path, lambda *_: "", HITS))
    (answer,) = out["messages"]
    assert [hit["id"] for hit in json.loads(answer.content)["hits"]] == ["f1", "f2"]
    assert answer.artifact["retrievals"][0]["concept"] == JAY


def hit_ids(state: ReactState) -> dict[str, list[str]]:
    return {retrieval.concept: [hit.id for hit in retrieval.hits] for retrieval in state.retrievals}


def actions(state: ReactState) -> dict[str, str]:
    return {repair.concept: repair.action for repair in state.repairs}


def test_repairs_pass_unchanged() -> None:
    after = apply_choices(state(attempt(), wish="w"), [swap(JAY)], [])
    assert (after.prompt, actions(after)) == ("w", {JAY: "swap_reference"})
    assert hit_ids(after) == {JAY: ["f1", "f2"], OWL: ["w1"]}


def test_a_choice_is_the_only_hit_and_adds_its_repair() -> None:
    after = apply_choices(state(), [], [schemas.Choice(concept=JAY, id="f2")])
    assert hit_ids(after)[JAY] == ["f2"]
    assert actions(after) == {JAY: "add_reference"}
    again = apply_choices(state(attempt(0, f"{JAY}=f1")), [], [schemas.Choice(concept=JAY, id="f2")])
    assert actions(again) == {JAY: "swap_reference"}


def test_a_pin_beats_a_choice_and_stays() -> None:
    pins = [schemas.Pin(concept=JAY, hit=HITS[JAY][0])]
    after = apply_choices(state(pins=pins), [], [schemas.Choice(concept=JAY, id="f2")])
    assert hit_ids(after)[JAY] == ["f1"]
    used = state(attempt(0, f"{JAY}=f1"), pins=pins)
    assert actions(apply_choices(used, [], [])) == {}
    with pytest.raises(BadInput, match="the user fixed its picture"):
        apply_choices(used, [swap(JAY)], [])


def test_a_vetoed_hit_is_removed_and_replaced() -> None:
    after = apply_choices(state(attempt(0, f"{JAY}=f1"), vetoes=["f1"]), [], [])
    assert hit_ids(after)[JAY] == ["f2"]
    assert actions(after) == {JAY: "swap_reference"}
    with pytest.raises(BadInput, match="No picture 'f1'.*there are: f2"):
        apply_choices(state(vetoes=["f1"]), [], [schemas.Choice(concept=JAY, id="f1")])


def test_with_all_hits_vetoed_the_retrieval_abstains() -> None:
    after = apply_choices(state(vetoes=["f1", "f2"]), [swap(JAY)], [])
    (retrieval,) = [item for item in after.retrievals if item.concept == JAY]
    assert (retrieval.hits, retrieval.abstained, retrieval.reason) == ((), True, "all found were vetoed")


def test_an_input_image_needs_no_retrieval() -> None:
    reference = Reference(concept=JAY, hit=Hit(id="mine", score=1), picture=PICTURE)
    after = apply_choices(state(unretrieved=[JAY], given=[reference]), [], [])
    assert hit_ids(after)[JAY] == ["mine"]
    assert actions(after) == {JAY: "add_reference"}
    assert actions(apply_choices(state(given=[reference], concepts=[]), [], [])) == {}


@pytest.mark.parametrize(
    ("before", "repair", "error"),
    [
        (state(), swap("dodo"), "no concept 'dodo'"),
        (state(unretrieved=[JAY]), swap(JAY), "call `retrieve` first"),
        (state(attempt(0, f"{OWL}=w1")), swap(OWL), "every picture found was tried"),
    ],
)
def test_a_repair_that_would_change_nothing_is_an_error(
    before: ReactState, repair: Repair, error: str
) -> None:
    with pytest.raises(BadInput, match=error):
        apply_choices(before, [repair], [])


def run(name: str, before: ReactState, folder: Path, **args: Any) -> dict[str, Any]:
    """Call a tool in a graph of one node and return its update of the state."""
    context = make_context(folder, lambda *_: "", HITS, SquareGenerator())
    updates: list[dict[str, Any]] = []

    def node(_: ReactState, runtime: Runtime[Context]) -> dict[str, Any]:
        call = {"name": name, "args": args, "id": "1"}
        updates.append(tools.run_call(call, before, runtime)[1])
        return {}

    builder: Any = StateGraph(ReactState, context_schema=Context)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.compile().invoke({"prompt": "p"}, context=context)
    return updates[0]


def test_a_ledger_has_the_models_rows_for_an_image_that_it_was_shown(tmp_path: Path) -> None:
    rows = [{"concept": name, "status": "present", "confidence": 0.9} for name in HITS]
    update = run("critique", state(attempt(), shown=[0]), tmp_path, picture=0, rows=rows)
    assert [row["status"] for row in update["attempts"][0]["ledger"]["rows"]] == ["present", "present"]
    for error, before in (
        ("not shown picture 0", state(attempt())),
        ("was judged before", state(attempt(0, **{JAY: "missing"}), shown=[0])),
        ("call `decompose` first", state(attempt(), shown=[0], concepts=[])),
    ):
        with pytest.raises(BadInput, match=error):
            run("critique", before, tmp_path, picture=0, rows=rows)


def test_no_image_is_generated_over_the_limit(tmp_path: Path) -> None:
    full = state(*(attempt(number) for number in range(3)))
    for name in ("generate", "direct"):
        with pytest.raises(BadInput, match="limit on attempts"):
            run(name, full, tmp_path)


def test_no_mllm_call_is_made_over_the_limit(tmp_path: Path) -> None:
    spent = {"budget": {"mllm_calls": 1}, "usage": [Usage(mllm_calls=1)]}
    with pytest.raises(BadInput, match="limit on mllm_calls"):
        run("critique", state(attempt(), **spent), tmp_path, picture=0)
    with pytest.raises(BadInput, match="limit on mllm_calls"):
        run("decompose", state(**spent), tmp_path, wish="w")


def test_vetoes_and_pins_are_stored(tmp_path: Path) -> None:
    pins = [schemas.Pin(concept=JAY, hit=HITS[JAY][0])]
    update = run("veto", state(vetoes=["x"], pins=pins), tmp_path, ids=["f1"])
    assert (update["vetoes"], update["pins"]) == (["f1", "x"], [])
    update = run("pin", state(pins=pins), tmp_path, concept=JAY, id="f2")
    assert [pin["hit"]["id"] for pin in update["pins"]] == ["f2"]
    with pytest.raises(BadInput, match="No picture 'x'"):
        run("pin", state(), tmp_path, concept=JAY, id="x")


def test_a_call_has_one_result() -> None:
    call = {"name": "veto", "args": {}, "id": "a"}
    first = to_json(AIMessage("", tool_calls=[call, {**call, "id": "b"}]))
    once = append_messages(first, to_json(ToolMessage("one", tool_call_id="a")))
    assert [call["id"] for call in pending_calls(once)] == ["b"]
    assert append_messages(once, to_json(ToolMessage("two", tool_call_id="a"))) == once
    assert pending_calls(append_messages(once, to_json(ToolMessage("two", tool_call_id="b")))) == []


def test_a_finished_request_is_stored_as_a_summary() -> None:
    call = {"name": "veto", "args": {}, "id": "a"}
    history = to_json(
        HumanMessage("hi"), AIMessage("", tool_calls=[call]), ToolMessage("x", tool_call_id="a")
    )
    best = attempt(0, f"{JAY}=f1")
    outcome = Outcome(ending="stopped", limit="attempts", reason="enough", best=best)
    archive = archive_request(state(best, messages=history, outcome=outcome, wish="w", vetoes=["v"]))
    assert [message["type"] for message in archive["messages"]] == ["human", "ai"]
    assert json.loads(archive["messages"][1]["data"]["content"])["references"] == [
        {"concept": JAY, "id": "f1"}
    ]
    assert (archive["turns"][0]["wish"], archive["vetoes"], len(archive["retrievals"])) == ("w", ["v"], 2)
    unfinished = archive_request(state(best, messages=history))
    assert unfinished["turns"][0]["outcome"]["best"]["number"] == 0


def test_a_long_thread_hands_over_no_more_than_a_short_one() -> None:
    best, sizes, archive = attempt(0, f"{JAY}=f1"), [], dict[str, Any]()
    for number in range(3 * MOST_REQUESTS):
        messages = [*archive.get("messages", []), *to_json(HumanMessage(f"request {number:03}"))]
        turns = [Turn.model_validate(turn) for turn in archive.get("turns", [])]
        attempts = (best,) if number == MOST_REQUESTS else ()
        archive = archive_request(state(*attempts, messages=messages, turns=turns, wish=f"wish {number:03}"))
        sizes.append(len(json.dumps(archive)))
    texts = [message["data"]["content"] for message in archive["messages"] if message["type"] == "human"]
    assert texts == [f"request {number:03}" for number in range(2 * MOST_REQUESTS, 3 * MOST_REQUESTS)]
    assert archive["messages"][0]["type"] == "human"
    assert [turn["wish"] for turn in archive["turns"]] == ["wish 016", "wish 047"]
    assert sizes[-1] == sizes[-10]
