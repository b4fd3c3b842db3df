"""One function a step: state in, what it changed out. The graphs only wire these."""

from __future__ import annotations

import hashlib
from time import perf_counter
from typing import Any, TypeVar

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from pleinair.agent import budget, ledger
from pleinair.agent import select as selection
from pleinair.agent import select as slots
from pleinair.agent.context import Context
from pleinair.agent.progress import OutOfTime, offload_levels_of, watch
from pleinair.agent.repairs import inpaint, leaks
from pleinair.agent.repairs import plan as planning
from pleinair.agent.state import Input, LookUp, State, changed, plain
from pleinair.tools.critique import critique as judge
from pleinair.tools.decompose import decompose as break_down
from pleinair.tools.generate import cost
from pleinair.tools.generate import generate as draw
from pleinair.tools.retrieve import retrieve as look_up
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
    """List what must be visible; a prompt that the model declines ends the run."""
    if budget.limit(state, budget.QUESTION):
        return {}
    try:
        concepts, usage = break_down(
            state.prompt, model=runtime.context.model, calls=budget.calls_left(state)
        )
    except Refused as refusal:
        return changed(outcome=Outcome(ending="refused", reason=str(refusal)), usage=[refusal.spent])
    return changed(concepts=concepts, usage=[usage])


def draft(state: State, runtime: Runtime[Context]) -> Update:
    """Draw the prompt without references."""
    return attempt(state, runtime, new_request(state, runtime.context), ())


def sketch(state: State, runtime: Runtime[Context]) -> Update:
    """Draw the prompt without references, in the generator's draft steps if a picture in full may follow."""
    request, able = new_request(state, runtime.context), runtime.context.generator.capabilities
    if able.draft_steps and state.budget.attempts > 1:
        request = request.model_copy(update={"num_inference_steps": able.draft_steps})
    return attempt(state, runtime, request, ())


def generate(state: State, runtime: Runtime[Context]) -> Update:
    """Draw the request that `select` has fixed."""
    assert state.request is not None, "`generate` comes after a step that sets the request"
    return attempt(state, runtime, state.request, tuple(state.repairs))


def attempt(
    state: State, runtime: Runtime[Context], request: GenerateRequest, repairs: tuple[Repair, ...]
) -> Update:
    """Draw one picture within the budget and number it after those before."""
    if budget.limit(state, budget.PICTURE):
        return {}
    context, started = runtime.context, perf_counter()
    steps = watch(runtime, started + budget.seconds_left(state))
    try:
        picture = draw(
            request,
            generator=context.generator,
            store=context.store,
            run_id=state.run_id,
            on_step=steps,
        )
    except OutOfTime:
        return changed(usage=[Usage(seconds=perf_counter() - started)])
    ended = perf_counter()
    paid = cost(request, generator=context.generator, store=context.store, run_id=state.run_id)
    done = Attempt(
        number=len(state.attempts),
        request=request,
        picture=picture,
        repairs=repairs,
        seconds=ended - (steps.began or started),
        offload_levels=offload_levels_of(context.generator),
    )
    return changed(attempts=[done], usage=[budget.total([Usage(images=1, seconds=ended - started), paid])])


def critique(state: State, runtime: Runtime[Context]) -> Update:
    """Judge the newest picture against every concept; without the means to, leave it unjudged."""
    newest = ledger.latest(state.attempts)
    if not state.concepts or newest is None or newest.ledger or budget.limit(state, budget.QUESTION):
        return {}
    context = runtime.context
    png = context.store.read(newest.picture)
    try:
        seen, usage = judge(
            png, state.prompt, state.concepts, model=context.model, calls=budget.calls_left(state)
        )
    except Refused as refusal:
        good = ledger.best(state.attempts)
        outcome = Outcome(ending="refused", reason=str(refusal), best=good)
        return changed(outcome=outcome, usage=[refusal.spent])
    judged = newest.model_copy(update={"ledger": seen})
    return changed(
        attempts=[leaks.compared(judged, state.attempts, context.store, context.leak)], usage=[usage]
    )


def plan(state: State, runtime: Runtime[Context]) -> Update:
    """Choose a repair for every row of the best picture that is not present."""
    good = ledger.best(state.attempts)
    assert good is not None and good.ledger is not None, "`plan` comes after a critique"
    rows = ledger.missing(good.ledger)
    able = runtime.context.generator.capabilities
    repairs = planning.plan(rows, state.attempts, state.retrievals, able.slots)
    repairs = inpaint.instead(repairs, good, state.attempts, state.retrievals, able)
    swaps = leaks.swaps(good, repairs, state.retrievals, state.attempts, runtime.context.leak)
    return changed(repairs=[*repairs, *swaps])


def retrieve(state: LookUp, runtime: Runtime[Context]) -> Update:
    """Look one concept up in the user's library."""
    started, context = perf_counter(), runtime.context
    found = look_up(
        Concept.model_validate(state), retriever=context.retriever, k=context.k, threshold=context.threshold
    )
    return changed(retrievals=[found], usage=[Usage(seconds=perf_counter() - started)])


def select(state: State, runtime: Runtime[Context]) -> Update:
    """Fill the slots and fix the next request, before anything is spent on it.

    The first repair shares the draft's noise, so that only the references, or the steps, differ.
    """
    context, good = runtime.context, ledger.best(state.attempts)
    repairs = planning.after_retrieval(state.repairs, ledger.rows_of(good), state.retrievals)
    references = slots.choose_references(state, context, good, repairs)
    request = new_request(
        state,
        context,
        references=references,
        prompt=planning.reworded(state.prompt, repairs, ledger.rows_of(good)),
        number=0 if _shares_noise(state, context, references, repairs) else len(state.attempts),
    )
    repaint = inpaint.repaint(repairs, good)
    return changed(request=request.model_copy(update={"inpaint": repaint}), repairs=repairs)


def _shares_noise(
    state: State, context: Context, references: tuple[Reference, ...], repairs: list[Repair]
) -> bool:
    """Tell whether a request is the draft's but for new references, or for more steps."""
    good = ledger.best(state.attempts)
    able, before = context.generator.capabilities, slots.references_of(good)
    new = any(one not in before for one in references)
    refined = good and not repairs and good.request.num_inference_steps < able.num_inference_steps
    return len(state.attempts) == 1 and bool(new or refined)


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
        references=selection.placed(references, ledger.rows_of(ledger.best(state.attempts)))
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
    return changed(outcome=budget.stopped(state, budget.limit(state, budget.PICTURE_AND_CHECK), good))


def finish_unchecked(state: State) -> Update:
    """End a graph that does not check its image: never accepted, and with the newest image."""
    if state.outcome:
        return {}
    newest = ledger.latest(state.attempts)
    if newest is None:
        return changed(outcome=budget.stopped(state, budget.limit(state, budget.PICTURE), None))
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
