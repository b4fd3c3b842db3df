"""What a driving model's calls do: the four verbs, the other graphs, and the user's likes and dislikes.

Each takes the checked arguments and a `ToolRuntime`, and returns a text for the model with the change of the
state as its artifact. `BadInput` and `ModelFault` are the model's to act on; any other error is the run's.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.config import get_config
from langgraph.prebuilt import ToolRuntime
from langgraph.runtime import Runtime

from pleinair.agent import budget, ledger, nodes
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.react import schemas as calls
from pleinair.agent.react.references import (
    apply_choices,
    retrieved_hit,
    with_input_images,
    without_vetoed,
)
from pleinair.agent.react.state import ReactState
from pleinair.agent.repairs import inpaint
from pleinair.agent.repairs.leaks import with_leaks
from pleinair.agent.state import Output, RetrieveTask, by_number, changed
from pleinair.tools import registry
from pleinair.tools.critique import in_order
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
    Usage,
    Value,
)

Done = tuple[str, Update]
Here = ToolRuntime[Context, ReactState]
CAPTION = 120  # characters of a hit's caption that the model is told


def _decompose(asked: calls.Decompose, runtime: Here) -> Done:
    """Set what is to be drawn; after a picture was judged it stays as it is."""
    state = runtime.state
    if any(one.ledger for one in state.attempts):
        raise BadInput("The concepts stay as they are: a picture was judged by them.")
    if not asked.concepts:
        return _fresh_concepts(state.model_copy(update={"prompt": asked.wish}), runtime)
    names = [one.name for one in asked.concepts]
    if len(set(names)) < len(names):
        raise BadInput(f"Each concept is named once; got {names}.")
    return _result(concepts=names), changed(wish=asked.wish, concepts=asked.concepts)


def _fresh_concepts(state: ReactState, runtime: Here) -> Done:
    """Ask for the concepts in a call of its own."""
    update = nodes.decompose(state, here(runtime)) or spent(state, budget.QUESTION)
    names = [one["name"] for one in update.get("concepts", [])]
    return _result(concepts=names), update | changed(wish=state.prompt)


def _critique(asked: calls.Critique, runtime: Here) -> Done:
    """Put the model's rows, or those of a fresh call, into the picture's ledger."""
    state, picture = runtime.state, asked.picture
    attempt = next((one for one in state.attempts if one.number == picture), None)
    if attempt is None or (asked.rows and picture not in state.shown):
        raise BadInput(f"You were not shown picture {picture}; shown were {state.shown or 'none'}.")
    if attempt.ledger:
        raise BadInput(f"Picture {picture} was judged before.")
    if not state.concepts:
        raise BadInput("There are no concepts yet: call `decompose` first.")
    if asked.rows:
        judged = in_order(asked.rows, [one.name for one in state.concepts])
        seen = attempt.model_copy(update={"ledger": judged})
        context = runtime.context
        return _verdict(
            state, changed(attempts=[with_leaks(seen, state.attempts, context.store, context.leak)])
        )
    if attempt != ledger.latest(state.attempts):
        raise BadInput("A fresh call judges the newest picture only.")
    return _verdict(state, nodes.critique(state, here(runtime)) or spent(state, budget.QUESTION))


def _verdict(state: ReactState, update: Update) -> Done:
    """Say which concepts the best picture lacks now."""
    merged = by_number(changed(all=state.attempts)["all"], update.get("attempts", []))
    best = ledger.best([Attempt.model_validate(one) for one in merged])
    rows = ledger.missing(best.ledger) if best and best.ledger else []
    return _result(best=best and best.number, not_present=[row.concept for row in rows]), update


def _retrieve(asked: calls.Retrieve, runtime: Here) -> Done:
    """Look a concept up."""
    state, concept = runtime.state, asked.concept
    known = {one.name: one.caption for one in state.concepts}
    if concept not in known:
        raise BadInput(f"There is no concept {concept!r}; there are: {', '.join(known) or 'none yet'}.")
    update = nodes.retrieve(RetrieveTask(name=concept, caption=asked.query or known[concept]), here(runtime))
    found = update["retrievals"][0]
    hits = [
        {"id": hit["id"], "score": hit["score"], "caption": hit["caption"][:CAPTION]} for hit in found["hits"]
    ]
    return _result(concept=concept, hits=hits, none_taken_because=found["reason"]), update


def _generate(asked: calls.Generate, runtime: Here) -> Done:
    """Fix the next request as the loop does, and draw it."""
    state = runtime.state
    if limit := budget.limit(state, budget.PICTURE):
        raise BadInput(f"No picture is left to draw: the limit on {limit} is reached.")
    seen = apply_choices(state, asked.repairs, asked.references)
    seen = seen.model_copy(update={"prompt": asked.prompt}) if asked.prompt else seen
    inpaint.require_possible(
        seen.repairs, ledger.best(state.attempts), runtime.context.generator.capabilities
    )
    own = here(runtime).override(context=with_input_images(runtime.context, state.given))
    fixed = nodes.select(seen, own)
    request = GenerateRequest.model_validate(fixed["request"])
    update = nodes.attempt(seen, own, request, tuple(map(Repair.model_validate, fixed["repairs"])))
    if not update.get("attempts"):
        return _result(picture=None, because="the limit on seconds"), update
    used = [{"concept": one.concept, "id": one.hit.id} for one in request.references]
    return _result(picture=update["attempts"][0]["number"], prompt=request.prompt, references=used), update


def _veto(asked: calls.Veto, runtime: Here) -> Done:
    """Forbid pictures, and let go of what was pinned to them."""
    state = runtime.state
    known = {hit.id for one in state.retrievals for hit in one.hits} | {one.hit.id for one in state.given}
    if strange := [id for id in asked.ids if id not in known]:
        raise BadInput(f"No picture {strange[0]!r} was found or given.")
    pins = [one for one in state.pins if one.hit.id not in asked.ids]
    return _result(vetoed=asked.ids), changed(vetoes=sorted({*state.vetoes, *asked.ids}), pins=pins)


def _pin(asked: calls.Fix, runtime: Here) -> Done:
    """Bind a concept to a picture that was found for it."""
    state = runtime.state
    hit = retrieved_hit(state, asked)
    kept = [one for one in state.pins if one.concept != asked.concept]
    fixed = calls.Pin(concept=asked.concept, hit=hit)
    return _result(pinned={asked.concept: hit.id}), changed(pins=[*kept, fixed])


def _finish(asked: calls.Finish, runtime: Here) -> Done:
    """End the run; whether a picture is accepted is the ledger's to say."""
    best = ledger.best(runtime.state.attempts)
    ending: Ending = "refused" if asked.refused else "stopped"
    outcome = Outcome(ending=ending, reason=asked.reason, limit=None, best=best)
    return _result(ended=True), changed(outcome=outcome)


def _run_graph(name: str, runtime: Here) -> Done:
    """Let another graph draw the wish within what is left; its ledgers count where its concepts are ours.

    Its steps are checkpointed beside those of the run, so a resumed run repeats none of them either.
    """
    state = runtime.state
    if limit := budget.limit(state, budget.PICTURE):
        raise BadInput(f"No picture is left to draw: the limit on {limit} is reached.")
    first = len(state.attempts)
    asked = changed(
        prompt=state.wish or state.prompt,
        seed=nodes.noise_seed(state.seed, first),
        run_id=state.run_id,
        budget=_remaining(state),
    )
    context = without_vetoed(runtime.context, state)
    output = Output.model_validate(registry.resolve("graph", name).invoke(asked, context=context))
    drawn = [_taken_over(one, first, state.concepts) for one in output.attempts]
    update = changed(attempts=drawn, retrievals=output.retrievals, usage=output.usage)
    why = output.outcome.reason if output.outcome else ""
    return _result(pictures=[one.number for one in drawn], reason=why), update


def _taken_over(attempt: Attempt, first: int, concepts: Sequence[Concept]) -> Attempt:
    """Number another graph's attempt after ours; a ledger of other concepts is left out."""
    rows = [row.concept for row in attempt.ledger.rows] if attempt.ledger else []
    same = rows == [one.name for one in concepts]
    return attempt.model_copy(
        update={"number": first + attempt.number, "ledger": attempt.ledger if same else None}
    )


def _remaining(state: ReactState) -> Budget:
    """Give what is left of every limit."""
    spent = budget.total(state.usage)
    most = {name: limit for name, limit in state.budget if name != "attempts" and limit is not None}
    left = {name: max(limit - getattr(spent, name), 0) for name, limit in most.items()}
    return Budget(attempts=max(state.budget.attempts - len(state.attempts), 0), **left)


def spent(state: ReactState, spend: Usage) -> NoReturn:
    """Refuse what the budget does not allow."""
    raise BadInput(f"No question is left to ask: the limit on {budget.limit(state, spend)} is reached.")


def _result(**facts: Any) -> str:
    """Write what a call brought, for the model."""
    return json.dumps(facts, ensure_ascii=False)


def here(runtime: Here) -> Runtime[Context]:
    """Give a tool's runtime as the nodes know it."""
    return Runtime(context=runtime.context, stream_writer=runtime.stream_writer)


DRIVER = "react"  # the graph that offers the others
TRAINED = "realrag"  # the graph that may want a trained retriever
Do = Callable[[Any, Here], Done]
TOOLS: dict[str, tuple[Do, type[Value]]] = {
    "decompose": (_decompose, calls.Decompose),
    "generate": (_generate, calls.Generate),
    "critique": (_critique, calls.Critique),
    "retrieve": (_retrieve, calls.Retrieve),
    "veto": (_veto, calls.Veto),
    "pin": (_pin, calls.Fix),
    "finish": (_finish, calls.Finish),
}


@cache
def tools() -> tuple[BaseTool, ...]:
    """Give the tools: the verbs, and every graph that is installed but the driver itself."""
    graphs = [name for name in registry.names("graph") if name != DRIVER and name not in TOOLS]
    own = [_tool(name, do, schema, schema.__doc__ or name) for name, (do, schema) in TOOLS.items()]
    return (*own, *map(_graph_tool, graphs))


def offered(context: Context) -> tuple[BaseTool, ...]:
    """Give the tools of a run: all but a graph that cannot draw with its retriever."""
    try:
        require_training(context.realrag, training_of(context.retriever))
    except BadInput:
        return tuple(one for one in tools() if one.name != TRAINED)
    return tools()


def _tool(name: str, do: Do, schema: type[Value], does: str) -> BaseTool:
    """Make one tool; what it gives besides its text is the change of the state.

    The arguments are checked here and not by LangChain, which drops what it does not know.
    """

    def run(runtime: Here, **given: Any) -> Done:
        return do(calls.parsed(schema, given), runtime)

    return StructuredTool.from_function(
        run,
        name=name,
        description=inspect.cleandoc(does),
        args_schema=schema.model_json_schema(),
        response_format="content_and_artifact",
    )


def _graph_tool(name: str) -> BaseTool:
    """Make a tool of a graph; it is imported when it is called."""
    does = f"Let the graph `{name}` draw the wish in its own way, within what is left of the budget."
    return _tool(name, lambda _, runtime: _run_graph(name, runtime), calls.Whole, does)


def objection(call: dict[str, Any], offers: Sequence[BaseTool] = ()) -> str:
    """Say what is wrong with a call before anything is done, "" if nothing; `offers` is all by default."""
    known = [one.name for one in offers or tools()]
    if call["name"] not in known:
        return f"There is no tool of that name; there are: {', '.join(known)}."
    try:
        calls.parsed(TOOLS[call["name"]][1] if call["name"] in TOOLS else calls.Whole, call["args"])
    except BadInput as error:
        return str(error)
    return ""


def carry_out(call: dict[str, Any], state: ReactState, runtime: Runtime[Context]) -> tuple[str, Update]:
    """Do what a sound call asks for; give the text for the model and the change of the state.

    Raises what the tool raises: `BadInput` and `ModelFault` for the model to act on.
    """
    known, config = tools(), get_config()
    here = Here(
        state=state,
        context=runtime.context,
        config=config,
        stream_writer=runtime.stream_writer,
        tool_call_id=call["id"],
        store=None,
        tools=list(known),
    )
    chosen = next(one for one in known if one.name == call["name"])
    given = call | {"type": "tool_call", "args": {**call["args"], "runtime": here}}
    answer = chosen.invoke(given, config)
    return str(answer.content), answer.artifact
