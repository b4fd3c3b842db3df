"""The graph that the model drives: the same pictures as the loop's, the same limits, and a whole thread."""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from support.fake_driver import Card, Driver, driver, reply
from support.fake_engines import ListRetriever, ScriptedChat, SquareGenerator, call, make_context

from pleinair.agent.context import Context
from pleinair.agent.react import messages as sent
from pleinair.agent.react.state import ReactState
from pleinair.agent.state import Output, changed
from pleinair.app.runs.runner import STEPS
from pleinair.graphs import pleinair
from pleinair.graphs.react import builder, graph
from pleinair.tools.errors import CutOff, Filtered
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.detector import Detection
from pleinair.tools.realrag import Method, RealRAGOptions
from pleinair.tools.types import Budget, Cancelled, Hit, Outcome, Picture, PleinairError, Reference

PROMPT = "a telma wren beside a velmora finch at night"
FINCH, WREN = "velmora finch", "telma wren"
HITS = {
    "a photo of a velmora finch": [Hit(id="finch.png", score=0.8), Hit(id="finch-2.png", score=0.7)],
    "a photo of a telma wren": [Hit(id="wren.png", score=0.8)],
}
Calls = tuple[str, dict[str, Any]]
DECOMPOSE: Calls = (
    "decompose",
    {"wish": PROMPT, "concepts": [{"name": FINCH, "caption": "a photo of a velmora finch"}]},
)


class FakeDetector:
    """See a phrase from the look on that `appears` names, never if it names none."""

    def __init__(self, **appears: int) -> None:
        self.appears = {name.replace("_", " "): look for name, look in appears.items()}
        self.looks = 0

    def detect(self, image: Image.Image, phrases: list[str]) -> list[Detection]:
        self.looks += 1
        seen = [self.looks > self.appears.get(phrase, 99) for phrase in phrases]
        return [Detection(0.9 if one else 0.1, None) for one in seen]


def pocket(**appears: int) -> PocketChat:
    chat = PocketChat()
    chat._loaded = FakeDetector(**appears)  # type: ignore[assignment]
    return chat


def context_with(folder: Path, model: Any, generator: SquareGenerator | None = None, **knobs: Any) -> Context:
    return replace(make_context(folder, lambda *_: "", HITS, generator, **knobs), model=model)


def ended(output: Output) -> Outcome:
    assert output.outcome is not None
    return output.outcome


def calls(output: Output) -> int:
    return sum(one.mllm_calls for one in output.usage)


def rows(card: Card, status: str = "present") -> Calls:
    judged = [{"concept": name, "status": status, "confidence": 0.9} for name in card["concepts"]]
    return ("critique", {"picture": card["shown"][-1], "rows": judged})


def sober(card: Card, _: list[BaseMessage]) -> AIMessage:
    """Draw, look, and find everything there."""
    if not card["concepts"]:
        return reply(DECOMPOSE, ("generate", {}))
    return reply(rows(card)) if card["shown"] else reply(("generate", {}))


def scripted(*replies: AIMessage | Callable[[Card], AIMessage]) -> Driver:
    """Reply in turn, and soberly when the script is over."""
    left = list(replies)

    def policy(card: Card, messages: list[BaseMessage]) -> AIMessage:
        one = left.pop(0) if left else sober(card, messages)
        return one if isinstance(one, AIMessage) else one(card)

    return driver(policy)


def run(folder: Path, model: Any, **fields: Any) -> Output:
    return call(graph, context_with(folder, model), PROMPT, **fields)


def told(model: Driver) -> list[ToolMessage]:
    """Give all results that the model had been told when it was last asked."""
    return [one for one in model.heard[-1] if isinstance(one, ToolMessage)]


SIGHTS: list[dict[str, int]] = [
    {"telma_wren": 0, "velmora_finch": 0},
    {"telma_wren": 0, "velmora_finch": 1},
    {"telma_wren": 1, "velmora_finch": 2},
    {"telma_wren": 0},
    {},
]


@pytest.mark.parametrize("detections", SIGHTS)
@pytest.mark.parametrize("threshold", [0.0, 0.75, 0.9])
def test_the_pocket_model_draws_what_the_loop_draws(
    tmp_path: Path, detections: dict[str, int], threshold: float
) -> None:
    outputs, drawn = [], []
    for name, one in (("loop", pleinair.graph), ("react", graph)):
        generator = SquareGenerator()
        context = context_with(tmp_path / name, pocket(**detections), generator, threshold=threshold)
        outputs.append(call(one, context, PROMPT, seed=3))
        drawn.append([request.model_dump(exclude={"prompt"}) for request in generator.requests])
    loop, react = outputs
    assert drawn[0] == drawn[1]
    assert (ended(react).ending, ended(react).reason) == (ended(loop).ending, ended(loop).reason)
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
def test_every_limit_ends_it_as_it_ends_the_loop(tmp_path: Path, budget: Budget) -> None:
    loop, react = (
        ended(call(one, context_with(tmp_path / name, pocket()), PROMPT, budget=budget))
        for name, one in (("loop", pleinair.graph), ("react", graph))
    )
    assert (react.ending, react.limit, react.reason) == (loop.ending, loop.limit, loop.reason)
    assert react.best is None or loop.best is not None


def test_without_a_question_nothing_is_drawn(tmp_path: Path) -> None:
    model = scripted()
    outcome = ended(run(tmp_path, model, budget=Budget(mllm_calls=0)))
    assert (outcome.limit, outcome.best, model.heard) == ("mllm_calls", None, [])


def test_no_call_is_made_when_nothing_may_be_drawn(tmp_path: Path) -> None:
    model = scripted()
    assert ended(run(tmp_path, model, budget=Budget(attempts=0))).limit == "attempts"
    assert not model.heard


def test_the_verbs_and_the_other_graphs_are_offered(tmp_path: Path) -> None:
    model = scripted()
    run(tmp_path, model)
    assert {"decompose", "generate", "critique", "retrieve", "pleinair", "imagerag"} <= set(model.offered)
    assert "react" not in model.offered


@pytest.mark.parametrize(("method", "able"), [("reflective", False), ("zero", True), ("self_contrast", True)])
def test_a_graph_that_cannot_draw_is_not_offered(tmp_path: Path, method: Method, able: bool) -> None:
    model = scripted(reply(DECOMPOSE, ("realrag", {})))
    call(graph, context_with(tmp_path, model, realrag=RealRAGOptions(method=method)), PROMPT)
    assert ("realrag" in model.offered) is able
    errors = [one.text for one in model.heard[1] if isinstance(one, ToolMessage) and one.status == "error"]
    assert any("no tool of that name" in text for text in errors) is not able


def test_pictures_are_shown_beside_the_card_and_nowhere_kept(tmp_path: Path) -> None:
    model, saver = scripted(), InMemorySaver()
    app: Any = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    app.invoke({"prompt": PROMPT}, config, context=context_with(tmp_path, model))
    shown = model.heard[1][-1]
    assert isinstance(shown, HumanMessage)
    (block,) = [one for one in shown.content_blocks if one["type"] == "image"]
    values = app.get_state(config).values
    best = Picture.model_validate(values["outcome"]["best"]["picture"])
    stored = context_with(tmp_path, model).store.read(best)
    assert base64.b64decode(block["base64"]) == stored
    assert not [one for one in model.heard[1][:-1] if "base64" in str(one.content)]
    assert "base64" not in json.dumps(values)
    assert max(len(blob[1]) for blob in saver.blobs.values()) < 64 * 1024


def test_a_picture_is_accepted_by_its_ledger_and_not_by_the_model(tmp_path: Path) -> None:
    hasty = scripted(reply(DECOMPOSE, ("generate", {}), ("finish", {"reason": "it is perfect"})))
    outcome = ended(run(tmp_path, hasty))
    assert (outcome.ending, outcome.reason) == ("stopped", "it is perfect")
    assert outcome.best is not None and outcome.best.ledger is None


def test_a_reason_of_the_models_own_is_no_limit(tmp_path: Path) -> None:
    model = scripted(reply(DECOMPOSE, ("finish", {"reason": "attempts"})))
    outcome = ended(run(tmp_path, model))
    assert (outcome.ending, outcome.limit, outcome.reason) == ("stopped", None, "attempts")


def test_what_follows_an_accepted_picture_is_not_paid_for(tmp_path: Path) -> None:
    model = scripted(
        reply(DECOMPOSE, ("generate", {})), lambda card: reply(rows(card), ("generate", {}), ("generate", {}))
    )
    output = run(tmp_path, model)
    assert (ended(output).ending, len(output.attempts)) == ("accepted", 1)


def test_a_fresh_call_decomposes_and_judges(tmp_path: Path) -> None:
    class Both(Driver):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            whole = len(tools) > 1
            return super().bind_tools(tools, **kwargs) if whole else pocket(**SIGHTS[0]).bind_tools(tools)

    script = iter(
        [
            reply(("decompose", {"wish": PROMPT}), ("generate", {}), ("critique", {"picture": 0})),
        ]
    )
    model = Both(policy=lambda *_: next(script), heard=[], offered=[])
    output = run(tmp_path, model)
    assert (ended(output).ending, calls(output)) == ("accepted", 3)


BAD = [
    ([("paint", {})], "no tool of that name; there are: decompose, generate"),
    ([("generate", {"size": 4})], "size: Extra inputs are not permitted"),
    ([("generate", {"prompt": 4})], "prompt: Input should be a valid string"),
    ([("generate", {"prompt": "x" * 2001})], "2,001 characters"),
    ([("generate", {"prompt": "a\0b"})], "holds the character"),
    ([("generate", {"prompt": "a\ud800"})], "holds the character"),
    ([("retrieve", {"concept": "dodo"})], "no concept 'dodo'"),
    ([("critique", {"picture": 10**12})], "less than or equal to"),
    ([("critique", {"picture": 7})], "not shown picture 7"),
    ([("critique", {"picture": 0, "rows": [{"concept": FINCH, "status": "yes"}]})], "rows.0.status"),
    (
        [("critique", {"picture": 0, "rows": [{"concept": FINCH, "status": "present", "confidence": 9}]})],
        "less",
    ),
    (
        [("critique", {"picture": 0, "rows": [{"concept": "dodo", "status": "present", "confidence": 1}]})],
        "rows",
    ),
    ([("generate", {"repairs": [{"concept": FINCH, "action": "add_reference"}]})], "not looked up"),
    ([("generate", {"repairs": [{"concept": "dodo", "action": "new_seed"}]})], "no concept 'dodo'"),
    ([("generate", {"repairs": [{"concept": FINCH, "action": "inpaint"}]})], "does not inpaint"),
    ([("generate", {"references": [{"concept": FINCH, "id": "dodo.png"}]})], "No picture 'dodo.png'"),
    ([("veto", {"ids": ["dodo.png"]})], "No picture 'dodo.png'"),
    ([("decompose", {"wish": "x", "concepts": [{"name": "a", "caption": "a"}] * 2})], "named once"),
]


@pytest.mark.parametrize(("bad", "says"), BAD)
def test_a_call_that_cannot_be_carried_out_is_told_why(tmp_path: Path, bad: list[Calls], says: str) -> None:
    model = scripted(reply(DECOMPOSE, ("generate", {})), reply(*bad))
    output = run(tmp_path, model)
    assert says in told(model)[-1].text
    assert told(model)[-1].status == "error"
    assert (ended(output).ending, len(output.attempts)) == ("accepted", 1)


def test_arguments_that_are_no_json_are_told(tmp_path: Path) -> None:
    broken = AIMessage("", invalid_tool_calls=[{"name": "generate", "args": "{", "id": "x1", "error": "cut"}])
    model = scripted(broken)
    assert ended(run(tmp_path, model)).ending == "accepted"
    assert told(model)[0].text == sent.NO_JSON


@pytest.mark.parametrize("ids", [["a", "a"], ["", "b"]])
def test_duplicate_and_missing_ids_are_all_rejected(tmp_path: Path, ids: list[str]) -> None:
    model = scripted(reply(*(("generate", {}, one) for one in ids)))
    output = run(tmp_path, model)
    assert "Every call needs an id" in model.heard[1][-2].text
    assert (ended(output).ending, len(output.attempts)) == ("accepted", 1)


def test_an_id_that_was_used_before_is_not_run_again(tmp_path: Path) -> None:
    again = reply((*DECOMPOSE, "one"), ("generate", {}, "two"))
    model = scripted(again, again)
    output = run(tmp_path, model)
    assert len(output.attempts) == 1
    assert "one, two" in model.heard[2][-2].text


def test_of_too_many_calls_the_first_are_run(tmp_path: Path) -> None:
    model = scripted(
        reply(DECOMPOSE, *[("retrieve", {"concept": FINCH, "query": f"q{n}"}) for n in range(200)])
    )
    run(tmp_path, model, budget=Budget(attempts=1, mllm_calls=2))
    results = told(model)
    assert len([one for one in results if one.status == "success"]) == 8
    assert len(results) == 201


def test_a_tool_that_does_not_exist_is_asked_about_twice_with_the_list(tmp_path: Path) -> None:
    model = driver(lambda *_: reply(("paint", {})))
    output = run(tmp_path, model)
    assert len(model.heard) == 1 + 2
    assert "there are: decompose, generate" in told(model)[-1].text
    assert (ended(output).ending, ended(output).reason) == ("stopped", f"no progress: {told(model)[-1].text}")


def test_the_same_call_again_and_again_ends_the_run(tmp_path: Path) -> None:
    model = driver(lambda *_: reply(("decompose", DECOMPOSE[1])))
    output = run(tmp_path, model)
    assert "same call brought the same 3 times" in ended(output).reason
    assert calls(output) == 3


def test_a_model_that_is_never_done_is_stopped(tmp_path: Path) -> None:
    count = iter(range(10**6))
    model = driver(lambda *_: reply(DECOMPOSE, ("retrieve", {"concept": FINCH, "query": f"q{next(count)}"})))
    output = run(tmp_path, model)
    assert "replied" in ended(output).reason or "same" in ended(output).reason
    assert calls(output) <= 4 + 6 * 3


def refusing(field: bool) -> Driver:
    return scripted(
        AIMessage("", additional_kwargs={"refusal": "I will not."}) if field else AIMessage("No."),
        *([] if field else [AIMessage("I said no.")]),
    )


@pytest.mark.parametrize(("field", "reason", "asked"), [(True, "I will not.", 1), (False, "I said no.", 2)])
def test_a_refusal_ends_it(tmp_path: Path, field: bool, reason: str, asked: int) -> None:
    model = refusing(field)
    outcome = ended(run(tmp_path, model))
    assert (outcome.ending, outcome.reason, len(model.heard)) == ("refused", reason, asked)


@pytest.mark.parametrize("fault", [Filtered("the filter took it"), CutOff("cut off at the cap")])
def test_a_fault_of_the_model_is_counted_and_survived_once(tmp_path: Path, fault: PleinairError) -> None:
    def broken(card: Card) -> AIMessage:
        raise fault

    output = run(tmp_path, scripted(broken))
    assert ended(output).ending == ("refused" if isinstance(fault, Filtered) else "accepted")
    assert calls(output) == (1 if isinstance(fault, Filtered) else 3)


@pytest.mark.parametrize("facts", [{"finish_reason": "length"}, {"status": "incomplete"}])
def test_nothing_of_a_cut_off_reply_is_used(tmp_path: Path, facts: dict[str, str]) -> None:
    cut = reply(DECOMPOSE, ("generate", {}))
    cut.response_metadata = facts
    model = scripted(cut)
    output = run(tmp_path, model)
    assert model.heard[1][-2].text == sent.CUT_OFF
    assert len(output.attempts) == 1


def test_a_filtered_reply_is_a_refusal(tmp_path: Path) -> None:
    model = scripted(AIMessage("", response_metadata={"finish_reason": "content_filter"}))
    assert ended(run(tmp_path, model)).reason == "the model's provider filtered the answer"


def test_a_streamed_graph_still_asks_for_whole_replies(tmp_path: Path) -> None:
    class Streaming(Driver):
        def _stream(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("half a reply may come out of this")

    model = Streaming(policy=sober, heard=[], offered=[])
    app: Any = graph
    parts = list(
        app.stream({"prompt": PROMPT}, context=context_with(tmp_path, model), stream_mode="messages")
    )
    assert len(model.heard) == 2
    assert [len(message.tool_calls) for message, _ in parts if message.type == "ai"] == [2, 1]


def test_empty_replies_are_asked_again_and_then_end_it(tmp_path: Path) -> None:
    once = scripted(AIMessage(""))
    assert ended(run(tmp_path / "a", once)).ending == "accepted"
    never = driver(lambda *_: AIMessage(""))
    outcome = ended(run(tmp_path / "b", never))
    assert (outcome.ending, len(never.heard)) == ("stopped", 3)
    assert "no progress" in outcome.reason


def test_words_instead_of_a_call_are_reminded_once(tmp_path: Path) -> None:
    model = scripted(AIMessage("Shall I?"))
    assert ended(run(tmp_path, model)).ending == "accepted"
    assert model.heard[1][-2].text == sent.NO_CALL


def test_last_words_after_a_picture_are_no_refusal(tmp_path: Path) -> None:
    done = [AIMessage("There."), AIMessage("That is it.")]
    outcome = ended(run(tmp_path, scripted(reply(DECOMPOSE, ("generate", {})), *done)))
    assert (outcome.ending, outcome.reason) == ("stopped", "That is it.")
    assert outcome.best is not None


def test_an_error_of_a_tool_that_is_the_users_is_told_without_places(tmp_path: Path) -> None:
    class Closed(SquareGenerator):
        def generate(self, *_: Any) -> Image.Image:
            if self.requests:
                return super().generate(*_)
            self.requests.append(_[0])
            from pleinair.tools.types import BadInput

            raise BadInput("cannot read /home/somebody/secret.key: it is closed")

    model = scripted(reply(DECOMPOSE, ("generate", {})), reply(("generate", {})))
    output = call(graph, context_with(tmp_path, model, Closed()), PROMPT)
    (failed,) = [one for one in told(model) if one.status == "error"]
    assert failed.text == "cannot read … it is closed"
    assert ended(output).ending == "accepted"


def test_a_bug_in_a_tool_is_no_message(tmp_path: Path) -> None:
    class Broken(SquareGenerator):
        def generate(self, *_: Any) -> Image.Image:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(graph, context_with(tmp_path, scripted(), Broken()), PROMPT)


def test_a_judged_picture_is_not_judged_again_and_its_concepts_stay(tmp_path: Path) -> None:
    model = scripted(
        reply(DECOMPOSE, ("generate", {})),
        lambda card: reply(rows(card, "missing"), rows(card), DECOMPOSE, ("finish", {"reason": "enough"})),
    )
    output = run(tmp_path, model)
    assert ended(output).ending == "stopped"
    assert output.attempts[0].ledger is not None
    assert output.attempts[0].ledger.rows[0].status == "missing"


def test_a_picture_cannot_be_judged_before_it_was_seen(tmp_path: Path) -> None:
    row = {"concept": FINCH, "status": "present", "confidence": 1}
    blind = reply(DECOMPOSE, ("generate", {}), ("critique", {"picture": 0, "rows": [row]}))
    model = scripted(blind)
    output = run(tmp_path, model)
    assert "not shown picture 0" in told(model)[-1].text
    assert calls(output) == 2


def test_another_graph_draws_within_what_is_left(tmp_path: Path) -> None:
    class Both(Driver):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            whole = len(tools) > 1
            return super().bind_tools(tools, **kwargs) if whole else pocket(telma_wren=1).bind_tools(tools)

    names = [{"name": name, "caption": name} for name in (WREN, FINCH)]
    whole = ("decompose", {"wish": PROMPT, "concepts": names})
    script = iter([reply(whole, ("generate", {}), ("pleinair", {})), reply(("finish", {"reason": "enough"}))])
    model = Both(policy=lambda *_: next(script), heard=[], offered=[])
    output = run(tmp_path, model, budget=Budget(attempts=3))
    assert [one.number for one in output.attempts] == [0, 1, 2]
    assert [one.ledger is not None for one in output.attempts] == [False, True, True]
    assert calls(output) == 2 + 3


GRAPHS = ["crossmodal", "imagerag", "pleinair", "realrag"]


def nested(name: str) -> Driver:
    """Have another graph draw the finch, which it finds missing in every picture."""

    class Both(Driver):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return super().bind_tools(tools, **kwargs) if len(tools) > 1 else lacking.bind_tools(tools)

    concept = {"name": FINCH, "caption": "a photo of a velmora finch"}
    lacking = ScriptedChat(policy=lambda schema, card, _: found_missing(schema, card, concept), asked=[])
    script = iter([reply(DECOMPOSE, (name, {})), reply(("finish", {"reason": "enough"}))])
    return Both(policy=lambda *_: next(script), heard=[], offered=[])


def found_missing(schema: str, card: Card, concept: dict[str, str]) -> dict[str, Any]:
    answers: dict[str, dict[str, Any]] = {
        "Decomposition": {"concepts": [concept]},
        "SubQueries": {"subqueries": [FINCH]},
        "Decision": {"match": False, "why": "no finch"},
        "MissingConcepts": {"concepts": [FINCH]},
        "Captions": {"captions": [concept]},
    }
    return answers[schema] if schema in answers else rows(card | {"shown": [0]}, "missing")[1]


class Shelf(ListRetriever):
    """Find the same for any query."""

    def search(self, query: str, k: int) -> list[Hit]:
        return [one.model_copy(update={"caption": FINCH}) for one in HITS["a photo of a velmora finch"]][:k]


def nested_context(folder: Path, name: str, generator: SquareGenerator) -> Context:
    context = context_with(folder, nested(name), generator, realrag=RealRAGOptions(method="zero"))
    return replace(context, retriever=Shelf(HITS))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("vetoes", [[], ["finch.png"]])
def test_another_graph_uses_no_vetoed_picture(tmp_path: Path, name: str, vetoes: list[str]) -> None:
    generator = SquareGenerator()
    context = nested_context(tmp_path, name, generator)
    output = call(graph, context, PROMPT, vetoes=vetoes, budget=Budget(attempts=2))
    used = [hit.hit.id for one in output.attempts for hit in one.request.references]
    assert used[:1] == (["finch-2.png"] if vetoes else ["finch.png"])
    assert not {*used, *(hit.id for one in output.retrievals for hit in one.hits)} & set(vetoes)


def test_another_graph_is_refused_where_the_user_fixed_a_picture(tmp_path: Path) -> None:
    generator = SquareGenerator()
    context = nested_context(tmp_path, "pleinair", generator)
    pin = {"concept": FINCH, "hit": HITS["a photo of a velmora finch"][1].model_dump()}
    output = call(graph, context, PROMPT, pins=[pin])
    assert not generator.requests
    assert "call `generate`" in told(context.model)[-1].text  # type: ignore[arg-type]
    assert ended(output).reason == "enough"


def test_a_process_that_dies_inside_another_graph_repeats_none_of_its_steps(tmp_path: Path) -> None:
    class Dying(SquareGenerator):
        dead = False

        def generate(self, *given: Any) -> Image.Image:
            if len(self.requests) == 1 and not self.dead:
                self.dead = True
                raise KeyboardInterrupt
            return super().generate(*given)

    generator = Dying()
    context = nested_context(tmp_path, "pleinair", generator)
    app: Any = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    budget = Budget(attempts=2)
    with pytest.raises(KeyboardInterrupt):
        app.invoke(changed(prompt=PROMPT, budget=budget), config, context=context, durability="sync")
    output = Output.model_validate(app.invoke(None, config, context=context, durability="sync"))
    assert [len(one.references) for one in generator.requests] == [0, 1]
    assert [one.number for one in output.attempts] == [0, 1]
    calm = nested_context(tmp_path / "calm", "pleinair", SquareGenerator())
    assert calls(output) == calls(call(graph, calm, PROMPT, budget=budget))


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
            *[("retrieve", {"concept": FINCH, "query": one}) for one in ("one", "two")],
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
                failed.append(query)
                raise OSError("the disk went away")
            return context.retriever.search(query, k)

    flaky = replace(context, retriever=Flaky())
    with pytest.raises(OSError, match="went away"):
        app.invoke({"prompt": PROMPT}, config, context=flaky)
    app.invoke(None, config, context=flaky)
    assert sorted(searched) == ["one", "two", "two"]
    assert len(model.heard) == 2
    assert app.get_state(config).values["outcome"]["ending"] == "accepted"


class Thread:
    """Say one thing after the other in one thread."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.app: Any = builder.compile(checkpointer=InMemorySaver())
        self.config: Any = {"configurable": {"thread_id": "1"}}
        self.generator, self.count = SquareGenerator(), 0
        self.context = context_with(folder, model, self.generator)

    def say(self, prompt: str, **fields: Any) -> ReactState:
        self.count += 1
        given = changed(prompt=prompt, run_id=str(self.count), **fields)
        self.app.invoke(given, self.config, context=self.context)
        return ReactState.model_validate(self.app.get_state(self.config).values)

    @property
    def last(self) -> tuple[str, list[str]]:
        request = self.generator.requests[-1]
        return request.prompt, [one.hit.id for one in request.references]


def best_of(state: ReactState) -> list[str]:
    assert state.outcome and state.outcome.best
    return [one.hit.id for one in state.outcome.best.request.references]


def test_now_make_it_night_keeps_subjects_and_references(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(telma_wren=0, velmora_finch=1))
    first = thread.say("a telma wren beside a velmora finch in the snow")
    assert best_of(first) == ["finch.png"]
    second = thread.say("Now make it night.")
    assert thread.last == ("a telma wren beside a velmora finch at night", ["finch.png"])
    assert second.outcome and second.outcome.ending == "accepted"
    assert (len(second.attempts), len(second.turns)) == (1, 1)
    assert second.turns[0].outcome == first.outcome
    assert sum(one.mllm_calls for one in second.usage) == 2


def test_not_that_bird_takes_another_one_for_good(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(telma_wren=0, velmora_finch=1))
    thread.say(PROMPT)
    second = thread.say("not that bird")
    assert thread.last == (PROMPT, ["finch-2.png"])
    assert second.vetoes == ["finch.png"]
    thread.say("now make it snow")
    assert thread.last[1] == ["finch-2.png"]


def test_pins_and_vetoes_of_the_user_win(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(telma_wren=0, velmora_finch=1))
    thread.say(PROMPT)
    pin = {"concept": FINCH, "hit": HITS["a photo of a velmora finch"][1].model_dump()}
    pinned = thread.say("again", pins=[pin])
    assert best_of(pinned) == ["finch-2.png"]
    thread.say("again", pins=[], vetoes=["finch-2.png", "finch.png"])
    assert thread.last[1] == []


def test_the_users_own_picture_is_a_reference(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(telma_wren=0, velmora_finch=0))
    own = thread.context.store.put(Image.new("RGB", (16, 16), "teal"))
    given = Reference(concept=FINCH, hit=Hit(id=own.sha256, score=1.0, source="given"), picture=own)
    state = thread.say(PROMPT, given=[given])
    assert [one.picture for one in thread.generator.requests[0].references] == [own]
    assert state.outcome and state.outcome.ending == "accepted"
    thread.say("now make it snow")
    assert thread.last[1] == [own.sha256]


def test_an_unfinished_request_is_left_behind_by_the_next(tmp_path: Path) -> None:
    thread = Thread(tmp_path, pocket(telma_wren=0, velmora_finch=0))
    good = thread.context

    def stop(done: int, total: int) -> None:
        raise Cancelled("stop")

    thread.context = replace(good, on_step=stop)
    with pytest.raises(Cancelled):
        thread.say(PROMPT)
    thread.context = good
    state = thread.say("a telma wren on snow")
    assert state.turns[0].outcome.ending == "cancelled"
    assert state.outcome and state.outcome.ending == "accepted"


def nonsense(rng: random.Random) -> Callable[[Card, list[BaseMessage]], AIMessage]:
    """Make a model that loops, refuses, and calls nonsense, in a way of its own."""
    weights = [rng.random() ** 3 for _ in range(12)]
    same = reply(DECOMPOSE, ("generate", {}))
    ids = iter(range(10**9))

    def one_of(card: Card) -> AIMessage:
        acts: list[Callable[[], AIMessage]] = [
            lambda: AIMessage(""),
            lambda: AIMessage("No."),
            lambda: AIMessage("", additional_kwargs={"refusal": "never"}),
            lambda: same,
            lambda: reply(DECOMPOSE),
            lambda: reply(*[("generate", {})] * rng.randrange(1, 30)),
            lambda: reply(("paint", {}), ("generate", {"prompt": rng.choice([1, None, "x" * 9999, "\0"])})),
            lambda: reply(*[("retrieve", {"concept": FINCH, "query": str(next(ids))}) for _ in range(9)]),
            lambda: reply(("critique", {"picture": rng.randrange(-1, 3)})),
            lambda: reply(
                rows(
                    {"concepts": [], **card, "shown": card.get("shown") or [0]},
                    rng.choice(["missing", "unsure"]),
                )
            ),
            lambda: reply(("generate", {}, "same"), ("generate", {}, "same")),
            lambda: reply((rng.choice(["direct", "pleinair", "veto", "pin", "finish"]), {})),
        ]
        return rng.choices(acts, weights)[0]()

    return lambda card, _: one_of(card)


@pytest.mark.parametrize("block", range(8))
def test_any_model_ends_within_its_budget(tmp_path: Path, block: int) -> None:
    for number in range(25):
        rng = random.Random(f"{block} {number}")
        most = Budget(
            attempts=rng.randrange(0, 5),
            images=rng.choice([None, 1, 3]),
            mllm_calls=rng.choice([None, None, 2, 9]),
        )
        model = driver(nonsense(rng))
        asked = changed(prompt=PROMPT, budget=most, run_id=str(number))
        config: Any = {"recursion_limit": STEPS * (most.attempts + 2)}
        context = context_with(tmp_path / str(number), model)
        app: Any = graph
        output = Output.model_validate(app.invoke(asked, config, context=context))
        outcome = ended(output)
        assert outcome.reason and outcome.ending in ("stopped", "refused")
        assert len(output.attempts) <= min(most.attempts, 99 if most.images is None else most.images)
        assert len(model.heard) <= (4 + 6 * most.attempts if most.mllm_calls is None else most.mllm_calls)
        assert sum(one.images for one in output.usage) == len(output.attempts)


def test_a_driving_model_has_a_box_painted_with_the_picture_that_it_chose(tmp_path: Path) -> None:
    def lacking(card: Card) -> AIMessage:
        name, judged = rows(card)
        judged["rows"][0] |= {"status": "missing", "box": [0.0, 0.0, 0.5, 0.5]}
        return reply((name, judged))

    concepts = [{"name": name, "caption": f"a photo of a {name}"} for name in (FINCH, WREN)]
    generator = SquareGenerator(inpaint_slots=1)
    model = scripted(
        reply(("decompose", {"wish": PROMPT, "concepts": concepts}), ("generate", {})),
        lacking,
        reply(("retrieve", {"concept": FINCH})),
        reply(
            (
                "generate",
                {
                    "repairs": [{"concept": FINCH, "action": "inpaint"}],
                    "references": [{"concept": FINCH, "id": "finch-2.png"}],
                },
            )
        ),
    )
    output = call(graph, context_with(tmp_path, model, generator), PROMPT)
    draft, painted = output.attempts
    asked = painted.request
    assert asked.inpaint is not None
    assert (asked.inpaint.concept, asked.inpaint.picture) == (FINCH, draft.picture)
    assert [one.hit.id for one in asked.references] == ["finch-2.png"]
    assert [one.action for one in painted.repairs] == ["inpaint"]
