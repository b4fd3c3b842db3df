"""One function a step: state in, what it changed out. The graphs only wire these."""

from __future__ import annotations

import hashlib
from time import perf_counter
from typing import Any

from langgraph.runtime import Runtime

from pleinair.agent import budget, inpaint, leaks, ledger
from pleinair.agent import plan as planning
from pleinair.agent import select as selection
from pleinair.agent.context import Context
from pleinair.agent.state import LookUp, State, changed
from pleinair.agent.watch import OutOfTime, rungs_of, watch
from pleinair.tools.critique import critique as judge
from pleinair.tools.crops import choose_crop
from pleinair.tools.decompose import decompose as break_down
from pleinair.tools.generate import generate as draw
from pleinair.tools.retrieve import retrieve as look_up
from pleinair.tools.types import (
    Attempt,
    Concept,
    Hit,
    Outcome,
    Reference,
    Refused,
    Repair,
    Request,
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


def attempt(state: State, runtime: Runtime[Context], request: Request, repairs: tuple[Repair, ...]) -> Update:
    """Draw one picture within the budget and number it after those before."""
    if budget.limit(state, budget.PICTURE):
        return {}
    context, started = runtime.context, perf_counter()
    try:
        picture = draw(
            request,
            generator=context.generator,
            store=context.store,
            run_id=state.run_id,
            on_step=watch(runtime, started + budget.seconds_left(state)),
        )
    except OutOfTime:
        return changed(usage=[Usage(seconds=perf_counter() - started)])
    seconds = perf_counter() - started
    done = Attempt(
        number=len(state.attempts),
        request=request,
        picture=picture,
        repairs=repairs,
        seconds=seconds,
        rungs=rungs_of(context.generator),
    )
    return changed(attempts=[done], usage=[Usage(images=1, seconds=seconds)])


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
        Concept.model_validate(state), retriever=context.retriever, k=context.k, floor=context.floor
    )
    return changed(retrievals=[found], usage=[Usage(seconds=perf_counter() - started)])


def select(state: State, runtime: Runtime[Context]) -> Update:
    """Fill the slots and fix the next request, before anything is spent on it.

    References that brought their concept in stay; a concept under repair gets its best untried hit,
    or keeps its old one where the repair is another seed. Where only its box is painted anew, the references
    of what is kept take no slot: they are not shown, and stay in the request as what the picture came from.
    """
    context, good = runtime.context, ledger.best(state.attempts)
    able, first = context.generator.capabilities, len(state.attempts) == 1
    repairs = planning.after_retrieval(state.repairs, ledger.rows_of(good), state.retrievals)
    before, painted = good.request.references if good else (), inpaint.painted(repairs)
    fresh = usable(state, {one.concept for one in repairs if one.action in (*inpaint.BRINGING, "inpaint")})
    swapped = inpaint.replaced(repairs, fresh, able)
    kept = tuple(reference for reference in before if reference.concept not in swapped)
    kept = kept if painted else kept[: able.slots]
    free = able.inpaint_slots if painted else max(able.slots - len(kept), 0)
    picks = selection.once(selection.select(fresh, free))
    new = tuple(make_reference(pick, context) for pick in picks)
    refined = good and not repairs and good.request.num_inference_steps < able.num_inference_steps
    request = new_request(
        state,
        context,
        references=selection.in_order(kept + new, [one.name for one in state.concepts]),
        prompt=planning.reworded(state.prompt, repairs, ledger.rows_of(good)),
        # the first repair shares the draft's noise, so that only the references, or the steps, differ
        number=0 if first and (new or refined) else len(state.attempts),
    )
    return changed(
        request=request.model_copy(update={"repaint": inpaint.repaint(repairs, good)}), repairs=repairs
    )


def usable(state: State, concepts: set[str]) -> dict[str, list[Hit]]:
    """Give each concept under repair its hits that are above the floor and untried."""
    found = [one for one in state.retrievals if one.concept in concepts]
    fresh = {one.concept: set(planning.untried(one, state.attempts)) for one in found}
    return {one.concept: [hit for hit in one.hits if hit.id in fresh[one.concept]] for one in found}


def make_reference(pick: selection.Pick, context: Context) -> Reference:
    """Copy a found picture into the store, so that the run keeps it, and choose its crop."""
    picture = context.store.put(context.retriever.open(pick.hit.id))
    size, concepts = (picture.width, picture.height), (pick.concept, *pick.others)
    crop = choose_crop(concepts, pick.hit.boxes, size, context.crops)
    return Reference(concept=pick.concept, hit=pick.hit, picture=picture, crop=crop)


def new_request(
    state: State,
    context: Context,
    *,
    references: tuple[Reference, ...] = (),
    prompt: str = "",
    number: int = 0,
) -> Request:
    """Write a request at the generator's own size and steps, with the noise of attempt `number`."""
    able = context.generator.capabilities
    return Request(
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
    if state.outcome:
        return {}
    good = ledger.best(state.attempts)
    if good and ledger.is_complete(good.ledger, state.concepts):
        return changed(outcome=Outcome(ending="accepted", reason="every concept is present", best=good))
    reason = budget.limit(state, budget.PICTURE_AND_CHECK) or "seconds"
    return changed(outcome=Outcome(ending="stopped", reason=reason, best=good))


def finish_unchecked(state: State) -> Update:
    """End a graph that does not look at its result: never accepted, and the newest picture."""
    if state.outcome:
        return {}
    newest = ledger.latest(state.attempts)
    reason = "the result is not checked by this graph" if newest else "attempts"
    return changed(outcome=Outcome(ending="stopped", reason=reason, best=newest))
