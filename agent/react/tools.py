"""Tools of the driving model: the four verbs, the other graphs, and the user's likes and dislikes.

Each takes checked arguments and a `ToolRuntime`, and returns a text for the model, with the update of the
state as its artifact. `BadInput` and `ModelFault` are for the model to act on; any other error is the run's.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NoReturn

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.config import get_config
from langgraph.prebuilt import ToolRuntime
from langgraph.runtime import Runtime

from pleinair.agent import ledger, nodes
from pleinair.agent.approval.nodes import ask, asks
from pleinair.agent.approval.types import Approval
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.react import schemas
from pleinair.agent.react.references import (
    apply_approval,
    apply_choices,
    retrieved_hit,
    without_unavailable,
    without_vetoed,
)
from pleinair.agent.react.state import ReactState, reference_ids
from pleinair.agent.repairs.leaks import with_leaks
from pleinair.agent.repairs.plan import require_possible
from pleinair.agent.select import with_input_images
from pleinair.agent.state import IMAGE, MLLM_CALL, Output, RetrieveTask, by_number, changed, plain
from pleinair.tools import registry
from pleinair.tools.critique import read_ledger
from pleinair.tools.mllm.boxes import Frame, convention_of
from pleinair.tools.realrag import require_training, training_of
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Budget,
    Concept,
    Ending,
    GenerateRequest,
    Outcome,
    Repair,
    Retrieval,
    Usage,
    Value,
)

Result = tuple[str, Update]
ReactRuntime = ToolRuntime[Context, ReactState]
_MAX_CAPTION = 120  # characters of a hit's caption in a result


def _decompose(arguments: schemas.Decompose, runtime: ReactRuntime) -> Result:
    """Set the wish and the concepts; once an image was judged they stay."""
    state = runtime.state
    if any(attempt.ledger for attempt in state.attempts):
        raise BadInput("The concepts stay as they are: a picture was judged by them.")
    names = [concept.name for concept in arguments.concepts]
    if len(set(names)) < len(names):
        raise BadInput(f"Each concept is named once; got {names}.")
    update = changed(concepts=arguments.concepts)
    if not names:  # an MLLM call of its own lists them
        state = state.model_copy(update={"prompt": arguments.wish})
        update = nodes.decompose(state, _node_runtime(runtime)) or _refuse(state, MLLM_CALL)
        names = [concept["name"] for concept in update.get("concepts", [])]
    return _text(concepts=names), update | changed(wish=arguments.wish)


def _critique(arguments: schemas.Critique, runtime: ReactRuntime) -> Result:
    """Set the ledger of an image to the model's rows, or to those of an MLLM call of its own."""
    state, number = runtime.state, arguments.picture
    attempt = next((attempt for attempt in state.attempts if attempt.number == number), None)
    if attempt is None or (arguments.rows and number not in state.shown):
        raise BadInput(f"You were not shown picture {number}; shown were {state.shown or 'none'}.")
    if attempt.ledger:
        raise BadInput(f"Picture {number} was judged before.")
    if not state.concepts:
        raise BadInput("There are no concepts yet: call `decompose` first.")
    if arguments.rows:
        context = runtime.context
        frame = Frame(convention_of(context.model))
        rows = read_ledger({"rows": list(arguments.rows)}, state.concept_names, frame)
        judged = attempt.model_copy(update={"ledger": rows})
        update = changed(attempts=[with_leaks(judged, state.attempts, context.store, context.leak)])
    elif attempt == ledger.latest(state.attempts):
        update = nodes.critique(state, _node_runtime(runtime)) or _refuse(state, MLLM_CALL)
    else:
        raise BadInput("A fresh call judges the newest picture only.")
    merged = by_number(changed(attempts=state.attempts)["attempts"], update.get("attempts", []))
    best = ledger.best([Attempt.model_validate(attempt) for attempt in merged])
    missing = ledger.missing(best.ledger) if best and best.ledger else []
    return _text(best=best and best.number, not_present=[row.concept for row in missing]), update


def _retrieve(arguments: schemas.Retrieve, runtime: ReactRuntime) -> Result:
    name = arguments.concept
    captions = {concept.name: concept.caption for concept in runtime.state.concepts}
    if name not in captions:
        raise BadInput(f"There is no concept {name!r}; there are: {', '.join(captions) or 'none yet'}.")
    query = arguments.query or captions[name]
    concept = Concept(name=name, caption=query)
    task = RetrieveTask(concepts=[plain(concept)], seed=runtime.state.seed)
    update = nodes.retrieve(task, _node_runtime(runtime))
    (retrieval,) = update["retrievals"]
    hits = [
        {"id": hit["id"], "score": hit["score"], "caption": hit["caption"][:_MAX_CAPTION]}
        for hit in retrieval["hits"]
    ]
    return _text(concept=name, hits=hits, none_taken_because=retrieval["reason"]), update


def _generate(arguments: schemas.Generate, runtime: ReactRuntime) -> Result:
    """Set the next request as the loop does, and generate it, once a person has approved of it if asked."""
    _require_image(runtime.state)
    state, request, retrievals = _select(arguments, runtime.state, runtime)
    update: Update = {}
    if asks(state, runtime.context.approve):
        approval = ask(state)
        answered, update = apply_approval(runtime.state, approval)
        has_unretrieved = approval.before == "references" and approval.concepts
        if approval.stop or has_unretrieved:
            return _text(picture=None, because="the user changed the plan", plan=update), update
        state, request, retrievals = _select(_as_answered(arguments, approval), answered, runtime)
    node_runtime = _node_runtime(runtime).override(context=with_input_images(runtime.context, state.given))
    update |= nodes.attempt(state, node_runtime, request, tuple(state.repairs))
    if retrievals:
        update |= changed(retrievals=retrievals)
    if not update.get("attempts"):
        return _text(picture=None, because="the limit on seconds"), update
    number, references = update["attempts"][0]["number"], reference_ids(request.references)
    return _text(picture=number, prompt=request.prompt, references=references), update


def _as_answered(arguments: schemas.Generate, approval: Approval) -> schemas.Generate:
    """Return the model's arguments without the prompt and the choices that an answer takes back."""
    concepts = approval.concepts.keys()
    choices = (choice for choice in arguments.references if choice.concept not in concepts)
    remaining = tuple(choice for choice in choices if choice.id not in approval.vetoes)
    prompt = "" if approval.prompt else arguments.prompt
    return arguments.model_copy(update={"prompt": prompt, "references": remaining})


def _select(
    arguments: schemas.Generate, before: ReactState, runtime: ReactRuntime
) -> tuple[ReactState, GenerateRequest, list[Retrieval]]:
    """Return the state with the next request and its repairs, the request, and retrievals that changed."""
    context = with_input_images(runtime.context, before.given)
    state, choices = without_unavailable(before, arguments.references, context)
    unavailable = [retrieval for retrieval in state.retrievals if retrieval not in before.retrievals]
    state = apply_choices(state, arguments.repairs, choices)
    if arguments.prompt:
        state = state.model_copy(update={"prompt": arguments.prompt})
    require_possible(state.repairs, ledger.best(state.attempts), runtime.context.capabilities(state.image))
    selected = nodes.select(state, _node_runtime(runtime).override(context=context))
    request = GenerateRequest.model_validate(selected["request"])
    repairs = [Repair.model_validate(repair) for repair in selected["repairs"]]
    retrievals = _marked(before, [*unavailable, *selected.get("retrievals", [])])
    return state.model_copy(update={"request": request, "repairs": repairs}), request, retrievals


def _marked(state: ReactState, changes: Sequence[Retrieval | dict[str, Any]]) -> list[Retrieval]:
    """Return the retrievals of the state with the unavailable hits of the changed ones."""
    marked = {retrieval.concept: retrieval for retrieval in state.retrievals}
    for change in map(Retrieval.model_validate, changes):
        for id, why in change.unavailable.items():
            if change.concept in marked and id not in marked[change.concept].unavailable:
                marked[change.concept] = marked[change.concept].without(id, why)
    return [retrieval for retrieval in marked.values() if retrieval not in state.retrievals]


def _veto(arguments: schemas.Veto, runtime: ReactRuntime) -> Result:
    """Veto hits, and drop the pins to them."""
    state = runtime.state
    ids = {hit.id for retrieval in state.retrievals for hit in retrieval.hits}
    ids |= {reference.hit.id for reference in state.given}
    if unknown := [id for id in arguments.ids if id not in ids]:
        raise BadInput(f"No picture {unknown[0]!r} was found or given.")
    pins = [pin for pin in state.pins if pin.hit.id not in arguments.ids]
    vetoes = sorted({*state.vetoes, *arguments.ids})
    return _text(vetoed=arguments.ids), changed(vetoes=vetoes, pins=pins)


def _pin(arguments: schemas.PinHit, runtime: ReactRuntime) -> Result:
    """Bind a concept to a hit that was retrieved for it."""
    hit = retrieved_hit(runtime.state, arguments)
    others = [pin for pin in runtime.state.pins if pin.concept != arguments.concept]
    pin = schemas.Pin(concept=arguments.concept, hit=hit)
    return _text(pinned={arguments.concept: hit.id}), changed(pins=[*others, pin])


def _finish(arguments: schemas.Finish, runtime: ReactRuntime) -> Result:
    """End the run; only a ledger can make it an accepted one."""
    best = ledger.best(runtime.state.attempts)
    ending: Ending = "refused" if arguments.refused else "stopped"
    outcome = Outcome(ending=ending, reason=arguments.reason, limit=None, best=best)
    return _text(ended=True), changed(outcome=outcome)


def _run_graph(name: str, _: schemas.RunGraph, runtime: ReactRuntime) -> Result:
    """Run another graph, imported only now, on the wish within the remaining budget.

    A ledger of its counts if it is of the same concepts. Its steps are checkpointed beside those of the run,
    so a resumed run repeats none of them.
    """
    state = runtime.state
    _require_image(state)
    first = len(state.attempts)
    values = changed(
        prompt=state.wish or state.prompt,
        seed=nodes.noise_seed(state.seed, first),
        run_id=state.run_id,
        budget=_remaining_budget(state),
        image=state.image,
    )
    context, graph = without_vetoed(runtime.context, state), registry.resolve("graph", name)
    if state.pictures and "pictures" in graph.builder.input_schema.model_fields:
        values |= changed(pictures=state.pictures)
    output = Output.model_validate(graph.invoke(values, context=context))
    attempts = [_renumbered(attempt, first, state.concept_names) for attempt in output.attempts]
    update = changed(attempts=attempts, retrievals=output.retrievals, usage=output.usage)
    reason = output.outcome.reason if output.outcome else ""
    return _text(pictures=[attempt.number for attempt in attempts], reason=reason), update


def _renumbered(attempt: Attempt, first: int, concepts: list[str]) -> Attempt:
    """Return another graph's attempt numbered after ours, without a ledger of other concepts."""
    is_ours = [row.concept for row in ledger.rows_of(attempt)] == concepts
    update = {"number": first + attempt.number, "ledger": attempt.ledger if is_ours else None}
    return attempt.model_copy(update=update)


def _remaining_budget(state: ReactState) -> Budget:
    spent = Usage.total(state.usage)
    limits = {name: limit for name, limit in state.budget if name != "attempts" and limit is not None}
    remaining = {name: max(limit - getattr(spent, name), 0) for name, limit in limits.items()}
    return Budget(attempts=max(state.budget.attempts - len(state.attempts), 0), **remaining)


def _require_image(state: ReactState) -> None:
    if limit := state.limit(IMAGE):
        raise BadInput(f"No picture is left to draw: the limit on {limit} is reached.")


def _refuse(state: ReactState, spend: Usage) -> NoReturn:
    raise BadInput(f"No MLLM call is left: the limit on {state.limit(spend)} is reached.")


def _text(**facts: Any) -> str:
    return json.dumps(facts, ensure_ascii=False)


def _node_runtime(runtime: ReactRuntime) -> Runtime[Context]:
    return Runtime(context=runtime.context, stream_writer=runtime.stream_writer)


DRIVER = "react"  # the graph that offers the others
_TRAINED = "realrag"  # the graph that may need a trained retriever
Function = Callable[[Any, ReactRuntime], Result]
TOOLS: dict[str, tuple[Function, type[Value]]] = {
    "decompose": (_decompose, schemas.Decompose),
    "generate": (_generate, schemas.Generate),
    "critique": (_critique, schemas.Critique),
    "retrieve": (_retrieve, schemas.Retrieve),
    "veto": (_veto, schemas.Veto),
    "pin": (_pin, schemas.PinHit),
    "finish": (_finish, schemas.Finish),
}


@cache
def all_tools() -> tuple[BaseTool, ...]:
    """Return the tools: those of `TOOLS`, and every installed graph but the react graph itself."""
    tools = [_tool(name, function, schema, schema.__doc__) for name, (function, schema) in TOOLS.items()]
    text = "Let the graph `{}` draw the wish in its own way, within what is left of the budget."
    for name in registry.names("graph"):
        if name != DRIVER and name not in TOOLS:
            tools.append(_tool(name, partial(_run_graph, name), schemas.RunGraph, text.format(name)))
    return tuple(tools)


def offered_tools(context: Context) -> tuple[BaseTool, ...]:
    """Return the tools of a run: all but a graph that cannot use the run's retriever."""
    try:
        require_training(context.realrag, training_of(context.retriever))
    except BadInput:
        return tuple(tool for tool in all_tools() if tool.name != _TRAINED)
    return all_tools()


def _tool(name: str, function: Function, schema: type[Value], description: str | None) -> BaseTool:
    """Return a LangChain tool whose artifact is the update of the state.

    The arguments are checked here and not by LangChain, which drops unknown ones.
    """

    def run(runtime: ReactRuntime, **arguments: Any) -> Result:
        return function(schemas.parse_arguments(schema, arguments), runtime)

    return StructuredTool.from_function(
        run,
        name=name,
        description=inspect.cleandoc(description or name),
        args_schema=schema.model_json_schema(),
        response_format="content_and_artifact",
    )


def call_fault(call: dict[str, Any], offered: Sequence[BaseTool] = ()) -> str:
    """Return what is wrong with a call before it is run, "" if nothing; all tools are offered by default."""
    names = [tool.name for tool in offered or all_tools()]
    if call["name"] not in names:
        return f"There is no tool of that name; there are: {', '.join(names)}."
    schema = TOOLS[call["name"]][1] if call["name"] in TOOLS else schemas.RunGraph
    try:
        schemas.parse_arguments(schema, call["args"])
    except BadInput as error:
        return str(error)
    return ""


def run_call(call: dict[str, Any], state: ReactState, runtime: Runtime[Context]) -> tuple[str, Update]:
    """Run a call without a fault; return the text for the model and the update of the state.

    Raises what the tool raises: `BadInput` and `ModelFault` for the model to act on.
    """
    config = get_config()
    tool_runtime = ReactRuntime(
        state=state,
        context=runtime.context,
        config=config,
        stream_writer=runtime.stream_writer,
        tool_call_id=call["id"],
        store=None,
        tools=list(all_tools()),
    )
    tool = next(tool for tool in all_tools() if tool.name == call["name"])
    arguments = {**call["args"], "runtime": tool_runtime}
    result = tool.invoke({**call, "type": "tool_call", "args": arguments}, config)
    return str(result.content), result.artifact
