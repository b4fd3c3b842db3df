"""Node functions of the loop, which the other graphs share; the graphs only wire them."""

from __future__ import annotations

import hashlib
from time import perf_counter
from typing import Any, TypeVar

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from pleinair.agent import budget, ledger
from pleinair.agent.context import Context
from pleinair.agent.progress import OutOfTime, offload_levels_of, watch
from pleinair.agent.repairs import plan as repair_plan
from pleinair.agent.repairs.inpaint import inpaint_of
from pleinair.agent.repairs.leaks import with_leaks
from pleinair.agent.select import references_of, select_references, with_boxes
from pleinair.agent.state import Input, RetrieveTask, State, changed, plain
from pleinair.tools.critique import critique as judge_image
from pleinair.tools.decompose import decompose as list_concepts
from pleinair.tools.generate import cost
from pleinair.tools.generate import generate as generate_image
from pleinair.tools.retrieve import retrieve as retrieve_concept
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Concept,
    GenerateRequest,
    Outcome,
    Reference,
    Refused,
    Repair,
    Usage,
)

Update = dict[str, Any]


def decompose(state: State, runtime: Runtime[Context]) -> Update:
    """List the concepts that must be visible; a prompt that the model declines ends the run."""
    if budget.limit(state, budget.MLLM_CALL):
        return {}
    try:
        concepts, usage = list_concepts(
            state.prompt, model=runtime.context.model, calls=budget.calls_left(state)
        )
    except Refused as refusal:
        return changed(outcome=Outcome(ending="refused", reason=str(refusal)), usage=[refusal.spent])
    return changed(concepts=concepts, usage=[usage])


def draft(state: State, runtime: Runtime[Context]) -> Update:
    """Generate an image of the prompt without references."""
    return attempt(state, runtime, new_request(state, runtime.context), ())


def quick_draft(state: State, runtime: Runtime[Context]) -> Update:
    """Generate a draft, in the generator's draft steps if an image in full steps may follow."""
    request, capabilities = new_request(state, runtime.context), runtime.context.generator.capabilities
    if capabilities.draft_steps and state.budget.attempts > 1:
        request = request.model_copy(update={"num_inference_steps": capabilities.draft_steps})
    return attempt(state, runtime, request, ())


def generate(state: State, runtime: Runtime[Context]) -> Update:
    """Generate the request that `select` has set."""
    assert state.request is not None, "`generate` comes after a node that sets the request"
    return attempt(state, runtime, state.request, tuple(state.repairs))


def attempt(
    state: State, runtime: Runtime[Context], request: GenerateRequest, repairs: tuple[Repair, ...]
) -> Update:
    """Generate one image within the budget, and number it after the attempts before."""
    if budget.limit(state, budget.IMAGE):
        return {}
    context, started = runtime.context, perf_counter()
    steps = watch(runtime, started + budget.seconds_left(state))
    try:
        picture = generate_image(
            request,
            generator=context.generator,
            store=context.store,
            run_id=state.run_id,
            on_step=steps,
        )
    except OutOfTime:
        return changed(usage=[Usage(seconds=perf_counter() - started)])
    finished = perf_counter()
    paid = cost(request, generator=context.generator, store=context.store, run_id=state.run_id)
    result = Attempt(
        number=len(state.attempts),
        request=request,
        picture=picture,
        repairs=repairs,
        seconds=finished - (steps.began or started),
        offload_levels=offload_levels_of(context.generator),
    )
    usage = budget.total([Usage(images=1, seconds=finished - started), paid])
    return changed(attempts=[result], usage=[usage])


def critique(state: State, runtime: Runtime[Context]) -> Update:
    """Judge the newest image against every concept; it stays unjudged without an MLLM call left."""
    newest = ledger.latest(state.attempts)
    if not state.concepts or newest is None or newest.ledger or budget.limit(state, budget.MLLM_CALL):
        return {}
    context = runtime.context
    png = context.store.read(newest.picture)
    try:
        rows, usage = judge_image(
            png, state.prompt, state.concepts, model=context.model, calls=budget.calls_left(state)
        )
    except Refused as refusal:
        outcome = Outcome(ending="refused", reason=str(refusal), best=ledger.best(state.attempts))
        return changed(outcome=outcome, usage=[refusal.spent])
    judged = newest.model_copy(update={"ledger": rows})
    return changed(attempts=[with_leaks(judged, state.attempts, context.store, context.leak)], usage=[usage])


def plan(state: State, runtime: Runtime[Context]) -> Update:
    """Set a repair for every concept that the best image does not show."""
    best, context = ledger.best(state.attempts), runtime.context
    assert best is not None and best.ledger is not None, "`plan` comes after a critique"
    repairs = repair_plan.plan_repairs(
        best, state.attempts, state.retrievals, context.generator.capabilities, context.leak
    )
    return changed(repairs=repairs)


def retrieve(state: RetrieveTask, runtime: Runtime[Context]) -> Update:
    """Retrieve images of one concept from the user's library."""
    started, context = perf_counter(), runtime.context
    retrieval = retrieve_concept(
        Concept(name=state["name"], caption=state["caption"]),
        retriever=context.retriever,
        k=context.k,
        threshold=context.threshold,
        seed=state.get("seed", 0),
    )
    return changed(retrievals=[retrieval], usage=[Usage(seconds=perf_counter() - started)])


def select(state: State, runtime: Runtime[Context]) -> Update:
    """Fill the slots and set the next request, before anything is spent on it.

    The first repair shares the draft's noise, so that only the references, or the steps, differ.
    """
    context, best = runtime.context, ledger.best(state.attempts)
    rows = ledger.rows_of(best)
    repairs = repair_plan.revise_repairs(state.repairs, rows, state.retrievals)
    references = select_references(state, context, repairs)
    request = new_request(
        state,
        context,
        references=references,
        prompt=repair_plan.prompt_with_advice(state.prompt, repairs, rows),
        number=0 if _shares_noise(state, context, references, repairs) else len(state.attempts),
    )
    request = request.model_copy(update={"inpaint": inpaint_of(repairs, best)})
    return changed(request=request, repairs=repairs)


def _shares_noise(
    state: State, context: Context, references: tuple[Reference, ...], repairs: list[Repair]
) -> bool:
    """Return whether a request is the draft's but for new references, or for more steps."""
    best, steps = ledger.best(state.attempts), context.generator.capabilities.num_inference_steps
    is_new = any(reference not in references_of(best) for reference in references)
    is_refined = best and not repairs and best.request.num_inference_steps < steps
    return len(state.attempts) == 1 and bool(is_new or is_refined)


def new_request(
    state: State,
    context: Context,
    *,
    references: tuple[Reference, ...] = (),
    prompt: str = "",
    number: int = 0,
) -> GenerateRequest:
    """Write a request at the generator's own size and steps, with the noise of attempt `number`."""
    able = context.generator.capabilities
    return GenerateRequest(
        prompt=prompt or state.prompt,
        references=with_boxes(references, ledger.rows_of(ledger.best(state.attempts)))
        if able.boxes
        else references,
        height=able.height,
        width=able.width,
        num_inference_steps=able.num_inference_steps,
        guidance_scale=able.guidance_scale,
        seed=noise_seed(state.seed, number),
    )


def noise_seed(seed: int, number: int) -> int:
    """Give noise 0 the run's own seed and every later one a seed of its own, the same in a replay."""
    if number == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:6], "big")


def finish(state: State) -> Update:
    """Say how it ended and give the best picture, which need not be the last."""
    good = ledger.best(state.attempts)
    if state.outcome:  # a step that ended the run beside the draft knows no picture
        best = state.outcome.best or good
        return changed(outcome=state.outcome.model_copy(update={"best": best}))
    if good and ledger.is_complete(good.ledger, state.concepts):
        return changed(outcome=Outcome(ending="accepted", reason="every concept is present", best=good))
    return changed(outcome=budget.stopped(state, budget.limit(state, budget.IMAGE_AND_CRITIQUE), good))


def finish_unchecked(state: State) -> Update:
    """End a graph that does not check its image: never accepted, and with the newest image."""
    if state.outcome:
        return {}
    newest = ledger.latest(state.attempts)
    if newest is None:
        return changed(outcome=budget.stopped(state, budget.limit(state, budget.IMAGE), None))
    return changed(outcome=Outcome(ending="unchecked", reason=ledger.UNCHECKED, best=newest))


# LangGraph hands a node whose state is no class the graph's own state, with the fields that only it has.
AnyState = TypeVar("AnyState", bound=State)


def begin(state: AnyState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Forget what an earlier request of the thread came to; what a caller may give stays as it is.

    It runs for every input and for no resume: a request that goes on keeps all that it has.

    Raises:
        BadInput: the graph was called without a context.
    """
    if runtime.context is None:
        raise BadInput(
            "There is no context: wanted graph.invoke(…, context=…) with a `pleinair.agent.context.Context`, "
            "which `pleinair.app.engines.build` makes; graphs of `pleinair.app.langgraph_server` take "
            "{'settings': {}}."
        )
    return _forgotten(state)


def _forgotten(state: State) -> dict[str, Any]:
    """Give the update that empties every field of one request; nothing where all are empty."""
    fields = type(state).model_fields
    own = {name: fields[name] for name in fields.keys() - _given_fields(type(state))}
    empty = {name: one.get_default(call_default_factory=True) for name, one in own.items()}
    old = [name for name in sorted(own) if getattr(state, name) != empty[name]]
    merged = {name for name in old if any(map(callable, own[name].metadata))}  # by a reducer
    return {name: Overwrite(empty[name]) if name in merged else plain(empty[name]) for name in old}


def _given_fields(state: type[State]) -> set[str]:
    """List the fields of a state that a caller gives: those of its input."""
    inputs = [one for one in state.__mro__ if issubclass(one, Input) and not issubclass(one, State)]
    return {name for one in inputs for name in one.model_fields}
