"""The react graph: the same images as the loop's, the same limits, and a thread of several requests."""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from PIL import Image
from support.fake_driver import Driver, Status, driver, reply
from support.fake_engines import ListRetriever, ScriptedChat, SquareGenerator, call, make_context

from pleinair.agent.context import Context
from pleinair.agent.react.messages import CUT_OFF, NO_CALL, NO_JSON
from pleinair.agent.react.state import ReactState
from pleinair.agent.state import Output, changed
from pleinair.app.runs.execution import STEPS
from pleinair.graphs import pleinair
from pleinair.graphs.react import builder, graph
from pleinair.tools.errors import CutOff, Filtered
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.detector import Detection
from pleinair.tools.realrag import Method, RealRAGOptions
from pleinair.tools.types import (
    Approve,
    BadInput,
    Budget,
    Cancelled,
    Hit,
    Outcome,
    Picture,
    PleinairError,
    Reference,
)

PROMPT = "a barn owl and a blue jay at night"
JAY, OWL = "blue jay", "barn owl"
HITS = {
    "a blue jay": [Hit(id="jay.png", score=0.8), Hit(id="jay-2.png", score=0.7)],
    "a barn owl": [Hit(id="owl.png", score=0.8)],
}
Calls = tuple[str, dict[str, Any]]
ADD_JAY = {"concept": JAY, "action": "add_reference", "why": "missing"}
DECOMPOSE: Calls = (
    "decompose",
    {"wish": PROMPT, "concepts": [{"name": JAY, "caption": "a blue jay"}]},
)


class FakeDetector:
    """Detector that finds a phrase from the image on that `appears` gives for it, else never."""

    def __init__(self, **appears: int) -> None:
        self.appears = {name.replace("_", " "): number for name, number in appears.items()}
        self.images = 0

    def detect(self, image: Image.Image, phrases: list[str]) -> list[Detection]:
        self.images += 1
        present = [self.images > self.appears.get(phrase, 99) for phrase in phrases]
        return [Detection(0.9 if value else 0.1, None) for value in present]


def pocket(**appears: int) -> PocketChat:
    chat = PocketChat()
    chat._loaded = FakeDetector(**appears)  # type: ignore[assignment]
    return chat


def context_with(folder: Path, model: Any, generator: SquareGenerator | None = None, **knobs: Any) -> Context:
    return replace(make_context(folder, lambda *_: "", HITS, generator, **knobs), model=model)


def end(output: Output) -> Outcome:
    assert output.outcome is not None
    return output.outcome


def calls(output: Output) -> int:
    return sum(usage.mllm_calls for usage in output.usage)


def rows(status: Status, verdict: str = "present") -> Calls:
    judged = [{"concept": name, "status": verdict, "confidence": 0.9} for name in status["concepts"]]
    return ("critique", {"picture": status["shown"][-1], "rows": judged})


def sensible(status: Status, _: list[BaseMessage]) -> AIMessage:
    """Generate an image and find every concept in it."""
    if not status["concepts"]:
        return reply(DECOMPOSE, ("generate", {}))
    return reply(rows(status)) if status["shown"] else reply(("generate", {}))


def scripted(*replies: AIMessage | Callable[[Status], AIMessage]) -> Driver:
    """Return a model with these replies, and sensible ones after them."""
    script = list(replies)

    def policy(status: Status, messages: list[BaseMessage]) -> AIMessage:
        item = script.pop(0) if script else sensible(status, messages)
        return item if isinstance(item, AIMessage) else item(status)

    return driver(policy)


def run(folder: Path, model: Any, **fields: Any) -> Output:
    return call(graph, context_with(folder, model), PROMPT, **fields)


def results_of(model: Driver) -> list[ToolMessage]:
    """Return the tool results in the model's last call."""
    return [message for message in model.sent[-1] if isinstance(message, ToolMessage)]


SIGHTS: list[dict[str, int]] = [
    {"barn_owl": 0, "blue_jay": 0},
    {"barn_owl": 0, "blue_jay": 1},
    {"barn_owl": 1, "blue_jay": 2},
    {"barn_owl": 0},
    {},
]


@pytest.mark.parametrize("detections", SIGHTS)
@pytest.mark.parametrize("threshold", [0.0, 0.75, 0.9])
def test_the_pocket_model_makes_the_same_requests_as_the_loop(
    tmp_path: Path, detections: dict[str, int], threshold: float
) -> None:
    outputs, requests = [], []
    for name, tested in (("loop", pleinair.graph), ("react", graph)):
        generator = SquareGenerator()
        context = context_with(tmp_path / name, pocket(**detections), generator, threshold=threshold)
        outputs.append(call(tested, context, PROMPT, seed=3))
        requests.append([request.model_dump(exclude={"prompt"}) for request in generator.requests])
    loop, react = outputs
    assert requests[0] == requests[1]
    assert (end(react).ending, end(react).reason) == (end(loop).ending, end(loop).reason)
    assert calls(react) <= 1.3 * calls(loop)
    assert [a.ledger for a in react.attempts] == [a.ledger for a in loop.attempts]


@pytest.mark.parametrize(
    "budget",
    [
        Budget(attempts=1),
        Budget(attempts=2),
        Budget(images=1),
        Budget(mllm_calls=1),
        Budget(mllm_calls=2),
        Budget(mllm_calls=3),
        Budget(seconds=0),
        Budget(tokens=1),
    ],
)
def test_every_limit_ends_it_like_the_loop(tmp_path: Path, budget: Budget) -> None:
    loop, react = (
        end(call(tested, context_with(tmp_path / name, pocket()), PROMPT, budget=budget))
        for name, tested in (("loop", pleinair.graph), ("react", graph))
    )
    assert (react.ending, react.limit, react.reason) == (loop.ending, loop.limit, loop.reason)
    assert react.best is None or loop.best is not None


def test_without_an_mllm_call_nothing_is_generated(tmp_path: Path) -> None:
    model = scripted()
    outcome = end(run(tmp_path, model, budget=Budget(mllm_calls=0)))
    assert (outcome.limit, outcome.best, model.sent) == ("mllm_calls", None, [])


def test_no_call_is_made_when_no_image_is_allowed(tmp_path: Path) -> None:
    model = scripted()
    assert end(run(tmp_path, model, budget=Budget(attempts=0))).limit == "attempts"
    assert not model.sent


def test_the_verbs_and_the_other_graphs_are_offered(tmp_path: Path) -> None:
    model = scripted()
    run(tmp_path, model)
    assert {"decompose", "generate", "critique", "retrieve", "pleinair", "imagerag"} <= set(model.offered)
    assert "react" not in model.offered


@pytest.mark.parametrize(
    ("method", "offered"), [("reflective", False), ("zero", True), ("self_contrast", True)]
)
def test_a_graph_without_its_retriever_is_not_offered(tmp_path: Path, method: Method, offered: bool) -> None:
    model = scripted(reply(DECOMPOSE, ("realrag", {})))
    call(graph, context_with(tmp_path, model, realrag=RealRAGOptions(method=method)), PROMPT)
    assert ("realrag" in model.offered) is offered
    errors = [
        message.text
        for message in model.sent[1]
        if isinstance(message, ToolMessage) and message.status == "error"
    ]
    assert any("no tool of that name" in text for text in errors) is not offered


def test_images_are_sent_in_the_status_message_and_not_stored(tmp_path: Path) -> None:
    model, saver = scripted(), InMemorySaver()
    app: Any = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    app.invoke({"prompt": PROMPT}, config, context=context_with(tmp_path, model))
    shown = model.sent[1][-1]
    assert isinstance(shown, HumanMessage)
    (block,) = [block for block in shown.content_blocks if block["type"] == "image"]
    values = app.get_state(config).values
    best = Picture.model_validate(values["outcome"]["best"]["picture"])
    stored = context_with(tmp_path, model).store.read(best)
    assert base64.b64decode(block["base64"]) == stored
    assert not [message for message in model.sent[1][:-1] if "base64" in str(message.content)]
    assert "base64" not in json.dumps(values)
    assert max(len(blob[1]) for blob in saver.blobs.values()) < 64 * 1024


def test_an_image_is_accepted_by_its_ledger_and_not_by_the_model(tmp_path: Path) -> None:
    hasty = scripted(reply(DECOMPOSE, ("generate", {}), ("finish", {"reason": "it is perfect"})))
    outcome = end(run(tmp_path, hasty))
    assert (outcome.ending, outcome.reason) == ("stopped", "it is perfect")
    assert outcome.best is not None and outcome.best.ledger is None


def test_a_reason_of_the_models_own_is_no_limit(tmp_path: Path) -> None:
    model = scripted(reply(DECOMPOSE, ("finish", {"reason": "attempts"})))
    outcome = end(run(tmp_path, model))
    assert (outcome.ending, outcome.limit, outcome.reason) == ("stopped", None, "attempts")


def test_calls_after_an_accepted_image_are_not_carried_out(tmp_path: Path) -> None:
    model = scripted(
        reply(DECOMPOSE, ("generate", {})),
        lambda status: reply(rows(status), ("generate", {}), ("generate", {})),
    )
    output = run(tmp_path, model)
    assert (end(output).ending, len(output.attempts)) == ("accepted", 1)


class DriverWithAnswers(Driver):
    """Driving model whose answers to calls with a single schema are another model's."""

    answers: Any

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return super().bind_tools(tools, **kwargs) if len(tools) > 1 else self.answers.bind_tools(tools)


def answering(answers: Any, *replies: AIMessage) -> DriverWithAnswers:
    script = iter(replies)
    return DriverWithAnswers(policy=lambda *_: next(script), sent=[], offered=[], answers=answers)


def test_calls_of_their_own_decompose_and_judge(tmp_path: Path) -> None:
    first = reply(("decompose", {"wish": PROMPT}), ("generate", {}), ("critique", {"picture": 0}))
    output = run(tmp_path, answering(pocket(**SIGHTS[0]), first))
    assert (end(output).ending, calls(output)) == ("accepted", 3)


BAD = [
    ([("paint", {})], "no tool of that name; there are: decompose, generate"),
    ([("generate", {"promt": "a"})], "Did you mean `prompt`?"),
    ([("generate", {"prompt": 4})], "prompt: Input should be a valid string"),
    ([("generate", {"prompt": "x" * 2001})], "2,001 characters"),
    ([("generate", {"prompt": "a\0b"})], "holds the character"),
    ([("generate", {"prompt": "a\ud800"})], "holds the character"),
    ([("retrieve", {"concept": "dodo"})], "no concept 'dodo'"),
    ([("critique", {"picture": 10**12})], "less than or equal to"),
    ([("critique", {"picture": 7})], "not shown picture 7"),
    ([("critique", {"picture": 0, "rows": [{"concept": JAY, "status": "yes"}]})], "confidence is None"),
    (
        [("critique", {"picture": 0, "rows": [{"concept": JAY, "status": "present", "confidence": 9}]})],
        "confidence is 9",
    ),
    (
        [("critique", {"picture": 0, "rows": [{"concept": "dodo", "status": "present", "confidence": 1}]})],
        "rows",
    ),
    ([("generate", {"repairs": [{"concept": JAY, "action": "add_reference"}]})], "not looked up"),
    ([("generate", {"repairs": [{"concept": "dodo", "action": "new_seed"}]})], "no concept 'dodo'"),
    ([("generate", {"repairs": [{"concept": JAY, "action": "inpaint"}]})], "does not inpaint"),
    ([("generate", {"references": [{"concept": JAY, "id": "dodo.png"}]})], "No picture 'dodo.png'"),
    ([("veto", {"ids": ["dodo.png"]})], "No picture 'dodo.png'"),
    ([("decompose", {"wish": "x", "concepts": [{"name": "a", "caption": "a"}] * 2})], "named once"),
]


@pytest.mark.parametrize(("bad", "error"), BAD)
def test_a_call_that_cannot_be_carried_out_has_an_error(tmp_path: Path, bad: list[Calls], error: str) -> None:
    model = scripted(reply(DECOMPOSE, ("generate", {})), reply(*bad))
    output = run(tmp_path, model)
    assert error in results_of(model)[-1].text
    assert results_of(model)[-1].status == "error"
    assert (end(output).ending, len(output.attempts)) == ("accepted", 1)


def test_arguments_that_are_not_json_are_an_error(tmp_path: Path) -> None:
    broken = AIMessage("", invalid_tool_calls=[{"name": "generate", "args": "{", "id": "x1", "error": "cut"}])
    model = scripted(broken)
    assert end(run(tmp_path, model)).ending == "accepted"
    assert results_of(model)[0].text == NO_JSON


@pytest.mark.parametrize("ids", [["a", "a"], ["", "b"], ["", ""], [" ", "b" * 99]])
def test_duplicate_missing_and_odd_ids_get_ids_of_our_own(tmp_path: Path, ids: list[str]) -> None:
    calls: list[Calls] = [DECOMPOSE, ("generate", {})]
    model = scripted(reply(*((*call, id) for call, id in zip(calls, ids, strict=True))))
    output = run(tmp_path, model)
    assert (end(output).ending, len(output.attempts)) == ("accepted", 1)
    assert {message.status for message in results_of(model)} == {"success"}
    assert len({message.tool_call_id for message in results_of(model)}) == len(results_of(model))


def test_a_server_that_numbers_each_replys_calls_anew_is_obeyed(tmp_path: Path) -> None:
    model = scripted(reply((*DECOMPOSE, "call_0")), reply(("generate", {}, "call_0")))
    output = run(tmp_path, model)
    assert (end(output).ending, len(output.attempts)) == ("accepted", 1)


def test_a_name_that_no_server_takes_back_is_reported_under_another(tmp_path: Path) -> None:
    model = scripted(reply(("functions.paint it", {})))
    assert end(run(tmp_path, model)).ending == "accepted"
    assert results_of(model)[0].name == "functions_paint_it"


def test_of_too_many_calls_the_first_are_run(tmp_path: Path) -> None:
    model = scripted(
        reply(DECOMPOSE, *[("retrieve", {"concept": JAY, "query": f"q{n}"}) for n in range(200)])
    )
    run(tmp_path, model, budget=Budget(attempts=1, mllm_calls=2))
    results = results_of(model)
    assert len([message for message in results if message.status == "success"]) == 8
    assert len(results) == 201


def test_a_tool_that_does_not_exist_is_reported_twice_with_the_list(tmp_path: Path) -> None:
    model = driver(lambda *_: reply(("paint", {})))
    output = run(tmp_path, model)
    assert len(model.sent) == 1 + 2
    assert "there are: decompose, generate" in results_of(model)[-1].text
    assert (end(output).ending, end(output).reason) == (
        "stopped",
        f"no progress: {results_of(model)[-1].text}",
    )


def test_the_same_call_again_and_again_ends_the_run(tmp_path: Path) -> None:
    model = driver(lambda *_: reply(("decompose", DECOMPOSE[1])))
    output = run(tmp_path, model)
    assert "same call brought the same 3 times" in end(output).reason
    assert calls(output) == 3


def test_a_model_that_never_finishes_is_stopped(tmp_path: Path) -> None:
    count = iter(range(10**6))
    model = driver(lambda *_: reply(DECOMPOSE, ("retrieve", {"concept": JAY, "query": f"q{next(count)}"})))
    output = run(tmp_path, model)
    assert "replied" in end(output).reason or "same" in end(output).reason
    assert calls(output) <= 4 + 6 * 3


def refusing(field: bool) -> Driver:
    return scripted(
        AIMessage("", additional_kwargs={"refusal": "I will not."}) if field else AIMessage("No."),
        *([] if field else [AIMessage("I said no.")]),
    )


@pytest.mark.parametrize(("field", "reason", "calls"), [(True, "I will not.", 1), (False, "I said no.", 2)])
def test_a_refusal_ends_it(tmp_path: Path, field: bool, reason: str, calls: int) -> None:
    model = refusing(field)
    outcome = end(run(tmp_path, model))
    assert (outcome.ending, outcome.reason, len(model.sent)) == ("refused", reason, calls)


@pytest.mark.parametrize("fault", [Filtered("the filter took it"), CutOff("cut off at the cap")])
def test_a_fault_of_the_model_is_counted_and_tolerated_once(tmp_path: Path, fault: PleinairError) -> None:
    def broken(status: Status) -> AIMessage:
        raise fault

    output = run(tmp_path, scripted(broken))
    assert end(output).ending == ("refused" if isinstance(fault, Filtered) else "accepted")
    assert calls(output) == (1 if isinstance(fault, Filtered) else 3)


@pytest.mark.parametrize("facts", [{"finish_reason": "length"}, {"status": "incomplete"}])
def test_nothing_of_a_cut_off_reply_is_used(tmp_path: Path, facts: dict[str, str]) -> None:
    cut = reply(DECOMPOSE, ("generate", {}))
    cut.response_metadata = facts
    model = scripted(cut)
    output = run(tmp_path, model)
    assert model.sent[1][-2].text == CUT_OFF
    assert len(output.attempts) == 1


def test_a_filtered_reply_is_a_refusal(tmp_path: Path) -> None:
    model = scripted(AIMessage("", response_metadata={"finish_reason": "content_filter"}))
    assert end(run(tmp_path, model)).reason == "the model's provider filtered the answer"


def test_a_streamed_graph_calls_the_model_without_streaming(tmp_path: Path) -> None:
    class Streaming(Driver):
        def _stream(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("half a reply may come out of this")

    model = Streaming(policy=sensible, sent=[], offered=[])
    app: Any = graph
    parts = list(
        app.stream({"prompt": PROMPT}, context=context_with(tmp_path, model), stream_mode="messages")
    )
    assert len(model.sent) == 2
    assert [len(message.tool_calls) for message, _ in parts if message.type == "ai"] == [2, 1]


def test_empty_replies_are_reported_and_then_end_it(tmp_path: Path) -> None:
    once = scripted(AIMessage(""))
    assert end(run(tmp_path / "a", once)).ending == "accepted"
    never = driver(lambda *_: AIMessage(""))
    outcome = end(run(tmp_path / "b", never))
    assert (outcome.ending, len(never.sent)) == ("stopped", 3)
    assert "no progress" in outcome.reason


def test_a_text_without_a_call_gets_one_reminder(tmp_path: Path) -> None:
    model = scripted(AIMessage("Shall I?"))
    assert end(run(tmp_path, model)).ending == "accepted"
    assert model.sent[1][-2].text == NO_CALL


@pytest.mark.parametrize("form", ["hermes", "mistral", "list", "tags", "arg_key"])
def test_calls_that_a_server_left_in_the_text_are_carried_out(form: str, tmp_path: Path) -> None:
    def text(*calls: Calls) -> AIMessage:
        parts = [json.dumps({"name": name, "arguments": args}) for name, args in calls]
        if form == "list":
            return AIMessage(f"[TOOL_CALLS] [{', '.join(parts)}]")
        if form == "hermes":
            return AIMessage("".join(f"<tool_call>\n{part}\n</tool_call>" for part in parts))
        return AIMessage("<think>{}</think>" + "".join(_in_marks(form, *one) for one in calls))

    row = {"concept": JAY, "status": "present", "confidence": 0.9}
    model = scripted(text(DECOMPOSE, ("generate", {})), text(("critique", {"picture": 0, "rows": [row]})))
    assert end(run(tmp_path, model)).ending == "accepted"
    assert len(model.sent) == 2
    sent = [message for message in model.sent[1] if isinstance(message, AIMessage)]
    assert [one["name"] for one in sent[0].tool_calls] == ["decompose", "generate"] and not sent[0].text


def _in_marks(form: str, name: str, args: dict[str, Any]) -> str:
    if form == "mistral":
        return f"[TOOL_CALLS]{name}[ARGS]{json.dumps(args)}"
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in args.items()}
    if form == "arg_key":
        pairs = (f"<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value>" for key, text in texts.items())
        return f"<tool_call>{name}\n{''.join(pairs)}</tool_call>"
    parameters = (f"<parameter={key}>\n{text}\n</parameter>" for key, text in texts.items())
    return f"<tool_call><function={name}>{''.join(parameters)}</function></tool_call>"


def test_a_last_text_after_an_image_is_not_a_refusal(tmp_path: Path) -> None:
    done = [AIMessage("There."), AIMessage("That is it.")]
    outcome = end(run(tmp_path, scripted(reply(DECOMPOSE, ("generate", {})), *done)))
    assert (outcome.ending, outcome.reason) == ("stopped", "That is it.")
    assert outcome.best is not None


def test_an_error_for_the_model_has_no_paths(tmp_path: Path) -> None:
    class Closed(SquareGenerator):
        def generate(self, *_: Any) -> Image.Image:
            if self.requests:
                return super().generate(*_)
            self.requests.append(_[0])
            raise BadInput("cannot read /home/somebody/secret.key: it is closed")

    model = scripted(reply(DECOMPOSE, ("generate", {})), reply(("generate", {})))
    output = call(graph, context_with(tmp_path, model, Closed()), PROMPT)
    (failed,) = [message for message in results_of(model) if message.status == "error"]
    assert failed.text == "cannot read … it is closed"
    assert end(output).ending == "accepted"


def test_a_bug_in_a_tool_raises(tmp_path: Path) -> None:
    class Broken(SquareGenerator):
        def generate(self, *_: Any) -> Image.Image:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(graph, context_with(tmp_path, scripted(), Broken()), PROMPT)


def test_a_judged_image_is_not_judged_again_and_its_concepts_stay(tmp_path: Path) -> None:
    model = scripted(
        reply(DECOMPOSE, ("generate", {})),
        lambda status: reply(
            rows(status, "missing"), rows(status), DECOMPOSE, ("finish", {"reason": "enough"})
        ),
    )
    output = run(tmp_path, model)
    assert end(output).ending == "stopped"
    assert output.attempts[0].ledger is not None
    assert output.attempts[0].ledger.rows[0].status == "missing"


def test_an_image_cannot_be_judged_before_it_was_shown(tmp_path: Path) -> None:
    row = {"concept": JAY, "status": "present", "confidence": 1}
    blind = reply(DECOMPOSE, ("generate", {}), ("critique", {"picture": 0, "rows": [row]}))
    model = scripted(blind)
    output = run(tmp_path, model)
    assert "not shown picture 0" in results_of(model)[-1].text
    assert calls(output) == 2


def test_another_graph_runs_within_the_remaining_budget(tmp_path: Path) -> None:
    names = [{"name": name, "caption": name} for name in (OWL, JAY)]
    first = reply(("decompose", {"wish": PROMPT, "concepts": names}), ("generate", {}), ("pleinair", {}))
    model = answering(pocket(barn_owl=1), first, reply(("finish", {"reason": "enough"})))
    output = run(tmp_path, model, budget=Budget(attempts=3))
    assert [attempt.number for attempt in output.attempts] == [0, 1, 2]
    assert [attempt.ledger is not None for attempt in output.attempts] == [False, True, True]
    assert calls(output) == 2 + 3


GRAPHS = ["crossmodal", "imagerag", "pleinair", "realrag"]


def nested(name: str) -> Driver:
    """Return a model that runs another graph, which finds the finch missing in every image."""
    answers = ScriptedChat(policy=answer_missing, schemas=[])
    return answering(answers, reply(DECOMPOSE, (name, {})), reply(("finish", {"reason": "enough"})))


def answer_missing(schema: str, status: Status, images: int) -> dict[str, Any]:
    concept = DECOMPOSE[1]["concepts"][0]
    answers: dict[str, dict[str, Any]] = {
        "Decomposition": {"concepts": [concept]},
        "SubQueries": {"subqueries": [JAY]},
        "Decision": {"match": False, "why": "no finch"},
        "MissingConcepts": {"concepts": [JAY]},
        "Captions": {"captions": [concept]},
    }
    return answers[schema] if schema in answers else rows(status | {"shown": [0]}, "missing")[1]


class Shelf(ListRetriever):
    """Retriever with the same hits for any query."""

    def search(self, query: str, k: int) -> list[Hit]:
        return [hit.model_copy(update={"caption": JAY}) for hit in HITS["a blue jay"]][:k]


def nested_context(folder: Path, name: str, generator: SquareGenerator) -> Context:
    context = context_with(folder, nested(name), generator, realrag=RealRAGOptions(method="zero"))
    return replace(context, retriever=Shelf(HITS))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("vetoes", [[], ["jay.png"]])
def test_another_graph_uses_no_vetoed_hit(tmp_path: Path, name: str, vetoes: list[str]) -> None:
    generator = SquareGenerator()
    context = nested_context(tmp_path, name, generator)
    output = call(graph, context, PROMPT, vetoes=vetoes, budget=Budget(attempts=2))
    used = [hit.hit.id for attempt in output.attempts for hit in attempt.request.references]
    assert used[:1] == (["jay-2.png"] if vetoes else ["jay.png"])
    assert not {*used, *(hit.id for retrieval in output.retrievals for hit in retrieval.hits)} & set(vetoes)


def test_another_graph_is_an_error_where_the_user_pinned_a_hit(tmp_path: Path) -> None:
    generator = SquareGenerator()
    context = nested_context(tmp_path, "pleinair", generator)
    pin = {"concept": JAY, "hit": HITS["a blue jay"][1].model_dump()}
    output = call(graph, context, PROMPT, pins=[pin])
    assert not generator.requests
    assert "call `generate`" in results_of(context.model)[-1].text  # type: ignore[arg-type]
    assert end(output).reason == "enough"


def test_a_process_that_dies_inside_another_graph_repeats_none_of_its_steps(tmp_path: Path) -> None:
    class Dying(SquareGenerator):
        dead = False

        def generate(self, *args: Any) -> Image.Image:
            if len(self.requests) == 1 and not self.dead:
                self.dead = True
                raise KeyboardInterrupt
            return super().generate(*args)

    generator = Dying()
    context = nested_context(tmp_path, "pleinair", generator)
    app: Any = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    budget = Budget(attempts=2)
    with pytest.raises(KeyboardInterrupt):
        app.invoke(changed(prompt=PROMPT, budget=budget), config, context=context, durability="sync")
    output = Output.model_validate(app.invoke(None, config, context=context, durability="sync"))
    assert [len(request.references) for request in generator.requests] == [0, 1]
    assert [attempt.number for attempt in output.attempts] == [0, 1]
    undisturbed = nested_context(tmp_path / "undisturbed", "pleinair", SquareGenerator())
    assert calls(output) == calls(call(graph, undisturbed, PROMPT, budget=budget))


def test_cancelling_stops_between_two_diffusion_steps(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        call(graph, context_with(tmp_path, scripted(), on_step=stop), PROMPT)


def test_a_resumed_run_repeats_no_call_that_has_its_result(tmp_path: Path) -> None:
    saver = InMemorySaver()
    searched: list[str] = []
    failed: list[str] = []
    app: Any = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    model = scripted(
        reply(
            DECOMPOSE,
            *[("retrieve", {"concept": JAY, "query": query}) for query in ("one", "two")],
            ("generate", {}),
        )
    )
    context = context_with(tmp_path, model)

    class Flaky:
        def __getattr__(self, name: str) -> Any:
            return getattr(context.retriever, name)

        def search(self, query: str, k: int) -> list[Hit]:
            searched.append(query)
            if query == "two" and not failed:
                while not any(task.result for task in app.get_state(config).tasks):
                    sleep(0.001)  # until the result of the other call is stored
                failed.append(query)
                raise OSError("the disk went away")
            return context.retriever.search(query, k)

    flaky = replace(context, retriever=Flaky())
    with pytest.raises(OSError, match="went away"):
        app.invoke({"prompt": PROMPT}, config, context=flaky)
    app.invoke(None, config, context=flaky)
    assert sorted(searched) == ["one", "two", "two"]
    assert len(model.sent) == 2
    assert app.get_state(config).values["outcome"]["ending"] == "accepted"


class Thread:
    """Several requests in one thread."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.app: Any = builder.compile(checkpointer=InMemorySaver())
        self.config: Any = {"configurable": {"thread_id": "1"}}
        self.generator, self.count = SquareGenerator(), 0
        self.context = context_with(folder, model, self.generator)

    def ask(self, prompt: str, **fields: Any) -> ReactState:
        self.count += 1
        values = changed(prompt=prompt, run_id=str(self.count), **fields)
        self.app.invoke(values, self.config, context=self.context)
        return ReactState.model_validate(self.app.get_state(self.config).values)

    @property
    def last(self) -> tuple[str, list[str]]:
        request = self.generator.requests[-1]
        return request.prompt, [reference.hit.id for reference in request.references]


def best_ids(state: ReactState) -> list[str]:
    assert state.outcome and state.outcome.best
    return [reference.hit.id for reference in state.outcome.best.request.references]


def test_another_place_keeps_subjects_and_references(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(barn_owl=0, blue_jay=1))
    first = thread.ask("a barn owl and a blue jay in the snow")
    assert best_ids(first) == ["jay.png"]
    second = thread.ask("Now make it night.")
    assert thread.last == ("a barn owl and a blue jay in the snow at night", ["jay.png"])
    assert second.outcome and second.outcome.ending == "accepted"
    assert (len(second.attempts), len(second.turns)) == (1, 1)
    assert second.turns[0].outcome == first.outcome
    assert sum(usage.mllm_calls for usage in second.usage) == 2


def test_not_that_jay_vetoes_its_reference(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(barn_owl=0, blue_jay=1))
    thread.ask(PROMPT)
    second = thread.ask("not that jay")
    assert thread.last == (PROMPT, ["jay-2.png"])
    assert second.vetoes == ["jay.png"]
    thread.ask("now make it snow")
    assert thread.last[1] == ["jay-2.png"]


def test_pins_and_vetoes_of_the_user_outrank_the_model(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(barn_owl=0, blue_jay=1))
    thread.ask(PROMPT)
    pin = {"concept": JAY, "hit": HITS["a blue jay"][1].model_dump()}
    pinned = thread.ask("again", pins=[pin])
    assert best_ids(pinned) == ["jay-2.png"]
    thread.ask("again", pins=[], vetoes=["jay-2.png", "jay.png"])
    assert thread.last[1] == []


def test_an_input_image_is_a_reference(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(barn_owl=0, blue_jay=0))
    picture = thread.context.store.put(Image.new("RGB", (16, 16), "teal"))
    reference = Reference(concept=JAY, hit=Hit(id=picture.sha256, score=1.0, source="given"), picture=picture)
    state = thread.ask(PROMPT, given=[reference])
    assert [reference.picture for reference in thread.generator.requests[0].references] == [picture]
    assert state.outcome and state.outcome.ending == "accepted"
    thread.ask("now make it snow")
    assert thread.last[1] == [picture.sha256]


def test_an_unfinished_request_becomes_a_cancelled_turn(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(barn_owl=0, blue_jay=0))
    context = thread.context

    def stop(done: int, total: int) -> None:
        raise Cancelled("stop")

    thread.context = replace(context, on_step=stop)
    with pytest.raises(Cancelled):
        thread.ask(PROMPT)
    thread.context = context
    state = thread.ask("a barn owl in the snow")
    assert state.turns[0].outcome.ending == "cancelled"
    assert state.outcome and state.outcome.ending == "accepted"


def nonsense(rng: random.Random) -> Callable[[Status, list[BaseMessage]], AIMessage]:
    """Return a policy that loops, refuses and calls nonsense, in random proportions."""
    weights = [rng.random() ** 3 for _ in range(12)]
    same = reply(DECOMPOSE, ("generate", {}))
    ids = iter(range(10**9))

    def choose(status: Status) -> AIMessage:
        replies: list[Callable[[], AIMessage]] = [
            lambda: AIMessage(""),
            lambda: AIMessage("No."),
            lambda: AIMessage("", additional_kwargs={"refusal": "never"}),
            lambda: same,
            lambda: reply(DECOMPOSE),
            lambda: reply(*[("generate", {})] * rng.randrange(1, 30)),
            lambda: reply(("paint", {}), ("generate", {"prompt": rng.choice([1, None, "x" * 9999, "\0"])})),
            lambda: reply(*[("retrieve", {"concept": JAY, "query": str(next(ids))}) for _ in range(9)]),
            lambda: reply(("critique", {"picture": rng.randrange(-1, 3)})),
            lambda: reply(
                rows(
                    {"concepts": [], **status, "shown": status.get("shown") or [0]},
                    rng.choice(["missing", "unsure"]),
                )
            ),
            lambda: reply(("generate", {}, "same"), ("generate", {}, "same")),
            lambda: reply((rng.choice(["direct", "pleinair", "veto", "pin", "finish"]), {})),
        ]
        return rng.choices(replies, weights)[0]()

    return lambda status, _: choose(status)


@pytest.mark.parametrize("block", range(8))
def test_any_model_ends_within_its_budget(tmp_path: Path, block: int) -> None:
    for number in range(25):
        rng = random.Random(f"{block} {number}")
        budget = Budget(
            attempts=rng.randrange(0, 5),
            images=rng.choice([None, 1, 3]),
            mllm_calls=rng.choice([None, None, 2, 9]),
        )
        model = driver(nonsense(rng))
        values = changed(prompt=PROMPT, budget=budget, run_id=str(number))
        config: Any = {"recursion_limit": STEPS * (budget.attempts + 2)}
        context = context_with(tmp_path / str(number), model)
        app: Any = graph
        output = Output.model_validate(app.invoke(values, config, context=context))
        outcome = end(output)
        assert outcome.reason and outcome.ending in ("stopped", "refused")
        assert len(output.attempts) <= min(budget.attempts, 99 if budget.images is None else budget.images)
        assert len(model.sent) <= (
            4 + 6 * budget.attempts if budget.mllm_calls is None else budget.mllm_calls
        )
        assert sum(usage.images for usage in output.usage) == len(output.attempts)


def test_a_driving_model_inpaints_a_box_with_the_hit_that_it_chose(tmp_path: Path) -> None:
    def lacking(status: Status) -> AIMessage:
        name, judged = rows(status)
        judged["rows"][0] |= {"status": "missing", "box": [0.0, 0.0, 0.5, 0.5]}
        return reply((name, judged))

    concepts = [{"name": name, "caption": f"a {name}"} for name in (JAY, OWL)]
    generator = SquareGenerator(inpaint_slots=1)
    model = scripted(
        reply(("decompose", {"wish": PROMPT, "concepts": concepts}), ("generate", {})),
        lacking,
        reply(("retrieve", {"concept": JAY})),
        reply(
            (
                "generate",
                {
                    "repairs": [{"concept": JAY, "action": "inpaint"}],
                    "references": [{"concept": JAY, "id": "jay-2.png"}],
                },
            )
        ),
    )
    output = call(graph, context_with(tmp_path, model, generator), PROMPT)
    draft, inpainted = output.attempts
    request = inpainted.request
    assert request.inpaint is not None
    assert (request.inpaint.concept, request.inpaint.picture) == (JAY, draft.picture)
    assert [reference.hit.id for reference in request.references] == ["jay-2.png"]
    assert [repair.action for repair in inpainted.repairs] == ["inpaint"]


class Asked:
    """Run of the react graph that stops at its questions."""

    def __init__(self, folder: Path, model: Any, approve: Approve) -> None:
        self.generator = SquareGenerator()
        self.context = context_with(folder, model, self.generator, approve=approve)
        self.graph = builder.compile(InMemorySaver())

    def go(self, value: Any) -> dict[str, Any]:
        config: Any = {"configurable": {"thread_id": "1"}}
        self.graph.invoke(value, config, context=self.context)
        waiting = self.graph.get_state(config).interrupts
        return dict(waiting[0].value) if waiting else {}


def test_a_concept_renamed_before_the_draft_is_drawn(tmp_path: Path) -> None:
    asked = Asked(tmp_path, pocket(barn_owl=0), "draft")
    assert asked.go({"prompt": PROMPT, "seed": 3})["before"] == "draft"
    asked.go(Command(resume={"concepts": {JAY: "green jay"}, "prompt": "a barn owl"}))
    assert asked.generator.requests[0].prompt == "a barn owl"


def test_a_persons_prompt_outranks_the_models(tmp_path: Path) -> None:
    model = scripted(reply(DECOMPOSE, ("generate", {"prompt": "a model's words"})))
    asked = Asked(tmp_path, model, "draft")
    asked.go({"prompt": PROMPT, "seed": 3})
    asked.go(Command(resume={"prompt": "a person's words"}))
    assert asked.generator.requests[0].prompt == "a person's words"


def test_a_vetoed_choice_of_the_model_is_replaced_by_the_next(tmp_path: Path) -> None:
    choice = {"references": [{"concept": JAY, "id": "jay.png"}]}
    retrieve = ("retrieve", {"concept": JAY})
    model = scripted(reply(DECOMPOSE, retrieve), reply(("generate", choice | {"repairs": [ADD_JAY]})))
    asked = Asked(tmp_path, model, "references")
    assert asked.go({"prompt": PROMPT, "seed": 3})["before"] == "references"
    asked.go(Command(resume={"vetoes": ["jay.png"]}))
    (request,) = asked.generator.requests
    assert [reference.hit.id for reference in request.references] == ["jay-2.png"]
