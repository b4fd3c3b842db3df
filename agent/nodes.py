"""Node functions and routes of the loop, which the other graphs share; the graphs only wire them."""

from __future__ import annotations

import base64
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeVar

from langgraph.graph import END
from langgraph.runtime import Runtime
from langgraph.types import Overwrite, Send

from pleinair.agent import ledger
from pleinair.agent.context import Context, ProvableModel
from pleinair.agent.progress import watch
from pleinair.agent.repairs import plan as repair_plan
from pleinair.agent.repairs.leaks import with_leaks
from pleinair.agent.select import (
    find_retrieval,
    input_references,
    references_of,
    select_references,
    until_available,
    with_boxes,
)
from pleinair.agent.state import (
    IMAGE,
    IMAGE_AND_CRITIQUE,
    MLLM_CALL,
    Input,
    RetrieveTask,
    State,
    changed,
    plain,
)
from pleinair.agent.unchanged import unchanged_rows
from pleinair.tools.callbacks import ReportsOffloadLevels
from pleinair.tools.critique import critique as judge_image
from pleinair.tools.deadline import OutOfTime
from pleinair.tools.decompose import decompose as list_concepts
from pleinair.tools.generate import check_options, cost
from pleinair.tools.generate import generate as generate_image
from pleinair.tools.mllm.ask import adding_usage
from pleinair.tools.prompt_options import check_placeholders
from pleinair.tools.retrieve import retrieve_all, searches_many
from pleinair.tools.types import (
    Attempt,
    Concept,
    GenerateRequest,
    ImageOptions,
    Ledger,
    Outcome,
    Picture,
    PleinairError,
    Reference,
    Refused,
    Repair,
    Usage,
)

Update = dict[str, Any]
# LangGraph passes the graph's own state class, with its additional fields, where a TypeVar is annotated.
AnyState = TypeVar("AnyState", bound=State)


def decompose(state: State, runtime: Runtime[Context]) -> Update:
    """List the concepts that must be visible; a prompt that the model declines ends the run."""
    if state.limit(MLLM_CALL):
        return {}
    try:
        concepts, usage = list_concepts(state.prompt, model=runtime.context.model, calls=state.calls_left)
    except Refused as refusal:
        return changed(outcome=Outcome(ending="refused", reason=str(refusal)), usage=[refusal.spent])
    return changed(concepts=concepts, usage=[usage])


def decompose_early(state: State, runtime: Runtime[Context]) -> Update:
    """List the concepts before the draft or beside it; first the model is proven.

    An error beside the draft is raised by the next step: LangGraph stores nothing of a step that ends in the
    moment in which another one of the same superstep has failed, and the draft would be lost. If that step
    runs in another process, the call is made again.
    """
    if state.postponed:
        raise state.postponed
    model, spent = runtime.context.model, Usage()
    try:
        if isinstance(model, ProvableModel) and not state.limit(MLLM_CALL):
            spent = model.prove().model_copy(update={"mllm_calls": 0})
        with adding_usage(spent):
            update = decompose(state, runtime)
    except PleinairError as error:
        if state.asks_first or state.attempts:
            raise
        return {"postponed": error}
    return update if spent == Usage() else update | changed(usage=[spent, *update.get("usage", [])])


def route_after_begin(state: State) -> list[str]:
    """Decompose beside the draft, or before it."""
    return ["decompose"] if state.asks_first else ["decompose", "draft"]


def route_after_decompose(state: State) -> str:
    """Generate the draft unless it exists or the run has ended; a critique waits for one beside this step."""
    if not (state.asks_first or state.attempts):
        return END
    return "critique" if state.attempts or state.outcome else "draft"


def draft(state: State, runtime: Runtime[Context]) -> Update:
    """Generate an image of the prompt without references."""
    return attempt(state, runtime, new_request(state, runtime.context), ())


def quick_draft(state: State, runtime: Runtime[Context]) -> Update:
    """Generate a draft, in the generator's draft steps if an image in full steps may follow."""
    request, steps = new_request(state, runtime.context), runtime.context.generator.capabilities.draft_steps
    if steps and steps < request.num_inference_steps and state.budget.attempts > 1:
        request = request.model_copy(update={"num_inference_steps": steps})
    return attempt(state, runtime, request, ())


def generate(state: State, runtime: Runtime[Context]) -> Update:
    """Generate the request that `select` has set."""
    assert state.request is not None, "`generate` comes after a node that sets the request"
    return attempt(state, runtime, state.request, tuple(state.repairs))


def attempt(
    state: State, runtime: Runtime[Context], request: GenerateRequest, repairs: tuple[Repair, ...]
) -> Update:
    """Generate one image within the budget, and number it after the attempts before."""
    if state.limit(IMAGE):
        return {}
    generator, store, run_id = runtime.context.generator, runtime.context.store, state.run_id
    started = perf_counter()
    steps = watch(runtime, started + state.seconds_left)
    try:
        picture = generate_image(request, generator=generator, store=store, run_id=run_id, on_step=steps)
    except OutOfTime:
        return changed(usage=[Usage(seconds=perf_counter() - started)])
    finished = perf_counter()
    levels = tuple(generator.offload_levels) if isinstance(generator, ReportsOffloadLevels) else ()
    paid = cost(request, generator=generator, store=store, run_id=run_id)
    result = Attempt(
        number=len(state.attempts),
        request=request,
        picture=picture,
        repairs=repairs,
        seconds=finished - (steps.began or started),
        offload_levels=levels,
    )
    usage = Usage.total([Usage(images=1, seconds=finished - started), paid])
    return changed(attempts=[result], usage=[usage])


def critique(state: State, runtime: Runtime[Context]) -> Update:
    """Judge the newest image against every concept; it stays unjudged without an MLLM call left.

    The model is asked about what may have changed since an earlier critique, which is all of a new image.
    """
    newest = ledger.latest(state.attempts)
    if not state.concepts or newest is None or newest.ledger:
        return {}
    context = runtime.context
    rows, usage = unchanged_rows(newest, state.attempts, context.store), Usage()
    if asked := [concept for concept in state.concepts if concept.name not in rows]:
        if state.limit(MLLM_CALL):
            return {}
        png = context.store.read(newest.picture)
        try:
            answer, usage = judge_image(png, state.prompt, asked, model=context.model, calls=state.calls_left)
        except Refused as refusal:
            outcome = Outcome(ending="refused", reason=str(refusal), best=ledger.best(state.attempts))
            return changed(outcome=outcome, usage=[refusal.spent])
        rows |= {row.concept: row for row in answer.rows}
    judgement = Ledger(rows=tuple(rows[name] for name in state.concept_names))
    judged = newest.model_copy(update={"ledger": judgement})
    return changed(attempts=[with_leaks(judged, state.attempts, context.store, context.leak)], usage=[usage])


def plan(state: State, runtime: Runtime[Context]) -> Update:
    """Set a repair for every concept that the best image does not show."""
    best, context = ledger.best(state.attempts), runtime.context
    assert best is not None and best.ledger is not None, "`plan` comes after a critique"
    repairs = repair_plan.plan_repairs(
        best, state.attempts, state.retrievals, context.capabilities(state.image), context.leak
    )
    return changed(repairs=repairs)


def retrieve(state: RetrieveTask, runtime: Runtime[Context]) -> Update:
    """Retrieve images of each concept of a task from the user's library."""
    context = runtime.context
    started = perf_counter()
    retrievals = retrieve_all(
        concepts_of(state),
        retriever=context.retriever,
        k=context.k,
        threshold=context.threshold,
        seed=state.get("seed", 0),
        with_name=True,
    )
    return changed(retrievals=retrievals, usage=[Usage(seconds=perf_counter() - started)])


def concepts_of(task: RetrieveTask) -> list[Concept]:
    """Return the concepts of a task."""
    concepts = task.get("concepts") or [{"name": task["name"], "caption": task["caption"]}]
    return [Concept.model_validate(concept) for concept in concepts]


def retrieve_tasks(concepts: Sequence[Concept], seed: int, retriever: object) -> list[Send]:
    """Return one task for all concepts where the retriever takes several at once, else one for each."""
    groups = [concepts] if concepts and searches_many(retriever) else [[concept] for concept in concepts]
    return [
        Send("retrieve", RetrieveTask(concepts=[plain(concept) for concept in group], seed=seed))
        for group in groups
    ]


def select(state: State, runtime: Runtime[Context]) -> Update:
    """Fill the slots and set the next request, before anything is spent on it.

    The first repair shares the draft's noise, so that only the references, or the steps, differ.
    """
    context, best = runtime.context, ledger.best(state.attempts)
    rows = ledger.rows_of(best)

    def build(state: State) -> tuple[list[Repair], tuple[Reference, ...]]:
        repairs = repair_plan.revise_repairs(state.repairs, rows, state.retrievals)
        return repairs, select_references(state, context, repairs)

    (repairs, references), retrievals = until_available(state, build)
    prompt = repair_plan.prompt_with_advice(state.prompt, repairs, rows)
    number = 0 if _shares_noise(state, context, references, repairs) else len(state.attempts)
    request = new_request(state, context, references=references, prompt=prompt, number=number)
    request = request.model_copy(update={"inpaint": repair_plan.inpaint_of(repairs, best)})
    return changed(request=request, repairs=repairs, retrievals=retrievals)


def _shares_noise(
    state: State, context: Context, references: tuple[Reference, ...], repairs: list[Repair]
) -> bool:
    """Return whether a request is the draft's but for new references, or for more steps."""
    best, steps = ledger.best(state.attempts), context.capabilities(state.image).num_inference_steps
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
    announced: bool = False,
) -> GenerateRequest:
    """Build a request with the image options, the generator's values and the noise of attempt `number`.

    The input images come before its references. A generator adds no sentences about what the references show
    to a prompt that is `announced` to say it.
    """
    capabilities, options = context.capabilities(state.image), context.image.merged(state.image)
    references = (*input_references(state.pictures), *references)
    if capabilities.boxes:
        references = with_boxes(references, ledger.rows_of(ledger.best(state.attempts)))
    return GenerateRequest(
        prompt=prompt or state.prompt,
        references=references,
        height=capabilities.height,
        width=capabilities.width,
        num_inference_steps=capabilities.num_inference_steps,
        guidance_scale=capabilities.guidance_scale,
        reference_strength=options.reference_strength,
        negative_prompt=options.negative_prompt or "",
        announced=announced,
        seed=noise_seed(state.seed, number),
    )


def noise_seed(seed: int, number: int) -> int:
    """Return the seed of noise `number`: the run's own for 0, else one derived from it."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big") if number else seed


def finish(state: State) -> Update:
    """Set the outcome with the best image, which need not be the last."""
    best = ledger.best(state.attempts)
    if state.outcome:  # a node that ended the run in parallel to the draft has no image
        return changed(outcome=state.outcome.model_copy(update={"best": state.outcome.best or best}))
    if best and ledger.is_complete(best.ledger, state.concepts):
        return changed(outcome=Outcome(ending="accepted", reason="every concept is present", best=best))
    return changed(outcome=state.stopped(state.limit(IMAGE_AND_CRITIQUE), best))


def finish_unchecked(state: State) -> Update:
    """Set the outcome of a graph that does not check its image: the newest one, never accepted."""
    if state.outcome:
        return {}
    newest = ledger.latest(state.attempts)
    if newest is None:
        return changed(outcome=state.stopped(state.limit(IMAGE), None))
    return changed(outcome=Outcome(ending="unchecked", reason=ledger.UNCHECKED, best=newest))


def begin_loop(state: State, runtime: Runtime[Context]) -> Update:
    """Reset as `begin` does, and decide whether the first MLLM call comes before the draft."""
    update, asks_first = begin(state, runtime), runtime.context.asks_first
    return update | (changed(asks_first=asks_first) if asks_first != state.asks_first else {})


def finishing(finish: Callable[..., Update]) -> Callable[..., Update]:
    """Return a node that sets the outcome by `finish`, and the URL of its best image."""
    takes_runtime = len(inspect.signature(finish).parameters) > 1

    def node(state: AnyState, runtime: Runtime[Context]) -> Update:
        update = finish(state, runtime) if takes_runtime else finish(state)
        outcome = update.get("outcome") or plain(state.outcome)
        if best := outcome and outcome["best"]:
            update["image_url"] = _image_url(Picture(**best["picture"]), runtime.context)
        return update

    return node


def _image_url(picture: Picture, context: Context) -> str:
    if context.image_url == "link":
        return f"/images/{picture.sha256}.png"
    if context.image_url == "data":
        return f"data:image/png;base64,{base64.b64encode(context.store.read(picture)).decode()}"
    place = context.store.path(picture)
    return place if "://" in place else Path(place).as_uri()


def begin(state: AnyState, runtime: Runtime[Context]) -> Update:
    """Reset what an earlier request of the thread left behind; the fields of the input stay.

    It runs for every input and for no resume, so a resumed request keeps its state. The update is empty
    where nothing has changed.

    Raises:
        BadInput: the input has an image option that the generator lacks, or its capabilities are unusable,
            or the prompt names an input image that does not exist.
    """
    check_placeholders(state.prompt, len(state.pictures))
    runtime.context.capabilities(state.image)  # are they usable?
    if state.image != ImageOptions():
        check_options(state.image, runtime.context.generator.capabilities)
    fields = type(state).model_fields
    bases = [base for base in type(state).__mro__ if issubclass(base, Input) and not issubclass(base, State)]
    inputs = {name for base in bases for name in base.model_fields}
    update: dict[str, Any] = {}
    for name in sorted(fields.keys() - inputs):
        default = fields[name].get_default(call_default_factory=True)
        if getattr(state, name) != default:
            has_reducer = any(map(callable, fields[name].metadata))
            update[name] = Overwrite(default) if has_reducer else plain(default)
    return update


def route_after_critique(state: State, runtime: Runtime[Context]) -> Literal["finish", "plan", "decompose"]:
    """Stop when an image is right, when a node ended the run, or when no further attempt is allowed.

    A draft of few steps that is right is generated once more in full, with nothing to repair. Without
    concepts their listing has failed beside the draft: its error is raised there.
    """
    best = ledger.best(state.attempts)
    if state.postponed or (best and not (state.concepts or state.outcome or state.limit(MLLM_CALL))):
        return "decompose"
    if state.outcome or best is None:
        return "finish"
    if ledger.is_complete(best.ledger, state.concepts) and not _only_drafts(state, runtime.context):
        return "finish"
    return "finish" if state.limit(IMAGE_AND_CRITIQUE) else "plan"


def _only_drafts(state: State, context: Context) -> bool:
    """Return whether every image so far was generated in fewer steps than the generator's own."""
    full = context.capabilities(state.image).num_inference_steps
    return all(attempt.request.num_inference_steps < full for attempt in state.attempts)


def route_after_plan(state: State, runtime: Runtime[Context]) -> list[Send] | Literal["select"]:
    """Retrieve for every concept that needs its first reference."""
    inpaints = bool(runtime.context.generator.capabilities.inpaint_slots)
    actions = ("add_reference", "inpaint") if inpaints else ("add_reference",)
    names = {repair.concept for repair in state.repairs if repair.action in actions}
    concepts = [
        concept
        for concept in state.concepts
        if concept.name in names and not find_retrieval(concept.name, state.retrievals)
    ]
    return retrieve_tasks(concepts, state.seed, runtime.context.retriever) or "select"
