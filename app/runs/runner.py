"""Carry a run out: from its row, over crashes, to its outcome."""

from __future__ import annotations

import traceback
from base64 import b64decode
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from pleinair.app.paths import Paths
from pleinair.app.runs.describe_call import about
from pleinair.app.runs.events import Event, EventLog, Kind
from pleinair.app.runs.lease import Lease
from pleinair.app.runs.request import adopt_given, read_order
from pleinair.app.runs.store import LeaseLost, Run, Runs
from pleinair.app.runs.thread import carried
from pleinair.app.runs.work import Work
from pleinair.app.settings import OnPreview
from pleinair.tools.callbacks import StopCheck
from pleinair.tools.types import Attempt, Cancelled, Ending, Outcome, PleinairError, Refused, Usage

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

    from pleinair.agent.context import Context
    from pleinair.app.runs.checkpoints import FencedSaver

OnEvent = Callable[[Event], None]
STEPS = 110  # a picture; `react` may take 17 a reply and 6 replies, and its own rules stop it before
MODES: Final = ("tasks", "updates", "custom")


def perform(
    runs: Runs,
    run: Run,
    places: Paths,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    *,
    reopen: bool = False,
) -> Run:
    """Work on a run until it ends, from wherever it stands, and return its row.

    Without `on_preview`, or where the settings want none, no previews are made; none are ever logged.

    Raises `Busy`, `Finished` or `LeaseLost` when it is not ours to work on.
    """
    order = read_order(run.order_json)
    with runs, Lease(runs, run.id, reopen=reopen) as lease:
        with closing(EventLog(places.events(run.id), on_event)) as record:
            seen = on_preview if order.settings.output.previews else None
            work = Work(run, order, places, lease, record, seen)
            outcome = _concluded(work)
            work.name_encoder()
            outcome = _delivered(work, outcome)
            lease.guard()
            _tell_end(work, outcome)
            lease.commit(outcome)
    return runs.get(run.id)


def _concluded(work: Work) -> Outcome:
    """Play the graph and turn whatever stops it into an outcome."""
    try:
        return _play(work)
    except LeaseLost:
        raise
    except Cancelled as stop:
        return _ended("cancelled", str(stop), work)
    except Refused as refusal:
        return _ended("refused", str(refusal), _charged(work, refusal))
    except PleinairError as fault:
        return _ended("failed", str(fault), _charged(work, fault))
    except Exception as bug:  # the one place where a bug becomes an outcome instead of a crash
        _keep_traceback(work)
        return _ended("failed", f"{type(bug).__name__}: {bug}", work)


def _charged(work: Work, fault: PleinairError) -> Work:
    """Add to the run what was paid in the step that failed, which its checkpoint does not know."""
    if fault.spent != Usage():
        work.values["usage"] = [*work.values.get("usage", []), fault.spent.model_dump(mode="json")]
    return work


def _ended(ending: Ending, reason: str, work: Work) -> Outcome:
    """Make an outcome with the best attempt that the checkpoint holds."""
    from pleinair.agent.ledger import best

    attempts = [Attempt.model_validate(attempt) for attempt in work.values.get("attempts", [])]
    return Outcome(ending=ending, reason=reason[:2000] or "no reason given", best=best(attempts))


def _keep_traceback(work: Work) -> None:
    """Put the traceback of a bug into the run's folder."""
    with suppress(OSError):  # a full disk must not hide the bug itself
        (work.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")


def _play(work: Work) -> Outcome:
    """Run the graph from its last checkpoint, or from the input if none is on disk."""
    from pleinair.app.runs.checkpoints import open_saver
    from pleinair.app.runs.copy_history import graft

    with open_saver(work.folder / "checkpoints.sqlite", work.lease.guard) as saver:
        graph = compiled(work.order.graph, saver)
        config: RunnableConfig = {"configurable": {"thread_id": work.run.id}}
        fresh, branch = saver.get_tuple(config) is None, work.order.parent
        try:
            if fresh and branch:
                graft(work, saver, branch, _start_input(work))
            _remember(work, graph, config)
            context = _build_context(work)
            kind: Kind = "started" if fresh else "resumed"
            work.record.write(kind, work.heading | work.snapshot, attempt=len(work.drawn))
            _follow(work, graph, _start_input(work) if fresh and not branch else None, config, context)
        finally:
            _remember(work, graph, config)
    if not work.values.get("outcome"):
        raise RuntimeError(f"graph {work.order.graph!r} ended without an outcome")
    return Outcome.model_validate(work.values["outcome"])


def compiled(name: str, saver: FencedSaver) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile a graph of the registry with our checkpointer."""
    from pleinair.tools.registry import resolve

    graph: CompiledStateGraph[Any, Any, Any, Any] = resolve("graph", name).builder.compile(
        checkpointer=saver, name=name
    )
    return graph


def _build_context(work: Work) -> Context:
    """Build the engines, and note which models they are."""
    from pleinair.app.engines import build, engine_choices
    from pleinair.tools.storage.artifacts import ArtifactStore
    from pleinair.tools.storage.files import sweep_parts
    from pleinair.tools.worker.worker import started

    work.lease.check()
    sweep_parts(work.folder / "pictures" / "parts", older_than=0)  # the holder before us is gone
    store = ArtifactStore(work.folder / "pictures")
    adopt_given(work.order.pictures, work.places, store)
    context = build(
        work.order.settings,
        work.places,
        store,
        on_step=StopCheck(work.lease.check),
        on_index=lambda done, total: _tell_index(work, done, total),
    )
    work.models = {kind: choice.label for kind, choice in engine_choices(work.order.settings).items()}
    work.models["generator"] = started(context.generator, context.on_step).capabilities.id
    return replace(context, previews=work.on_preview is not None)


def _start_input(work: Work) -> dict[str, Any]:
    """Give the graph's input as plain JSON."""
    budget = work.order.settings.budget.model_dump(mode="json")
    given = [picture.model_dump(mode="json") for picture in work.order.pictures]
    asked = {"prompt": work.order.prompt, "seed": work.run.seed, "run_id": work.run.id, "budget": budget}
    return asked | ({"pictures": given} if given else {}) | carried(work)


def _follow(
    work: Work,
    graph: CompiledStateGraph[Any, Any, Any, Any],
    given: dict[str, Any] | None,
    config: RunnableConfig,
    context: Context,
) -> None:
    """Stream the graph into the log, stopping between steps when asked to.

    Steps that are under way at a stop are waited for, so that what they paid for is kept; a picture stops
    at its next diffusion step.
    """
    steps = STEPS * (work.order.settings.budget.attempts + 2)
    parts = graph.stream(
        given,
        {**config, "recursion_limit": steps, "max_concurrency": 4},
        context=context,
        stream_mode=MODES,
        durability="sync",
        version="v2",
    )
    with closing(cast(Generator[Any, None, None], parts)):
        for part in parts:
            _tell(work, part["type"], cast(dict[str, Any], part["data"]))
            work.lease.check()


def _tell(work: Work, kind: str, data: dict[str, Any]) -> None:
    """Write one part of LangGraph's stream to the log."""
    if kind == "tasks" and "input" in data:
        work.record.write("step_started", _called(data["input"]), data["name"], len(work.drawn))
    elif kind == "custom" and "preview" in data:
        if work.on_preview:
            work.on_preview(b64decode(data["preview"]))
    elif kind == "custom":
        work.record.write("progress", data, str(data.get("step", "")), len(work.drawn))
    elif kind == "updates":
        for step, update in data.items():
            work.record.write("step_finished", update or {}, step, len(work.drawn))
            work.drawn.update(attempt["number"] for attempt in (update or {}).get("attempts", []))


def _called(given: Any) -> dict[str, Any]:
    """Give the call that a step carries out, as far as it is told; nothing for a step that was not called."""
    call = given.get("call") if isinstance(given, dict) else None
    return {"call": {"name": call["name"], "about": about(call)}} if call else {}


def _tell_index(work: Work, done: int, total: int) -> None:
    """Tell how far the library's index is, a hundred times at most; nothing while another run makes it."""
    work.lease.check()
    if done == total or (done and done % max(total // 100, 1) == 0):
        data = {"step": "index", "done": done, "total": total}
        work.record.write("progress", data, "index", len(work.drawn))


def _tell_end(work: Work, outcome: Outcome) -> None:
    """Close the log with the whole story, whatever single events a crash has swallowed."""
    from pleinair.app.runs.results import versions

    told = {"outcome": outcome.model_dump(mode="json"), "versions": versions()}
    work.record.write("ended", work.heading | work.snapshot | told, attempt=len(work.drawn))


def _remember(work: Work, graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig) -> None:
    """Read the state back from the checkpoint, with what finished tasks of a broken step wrote."""
    work.values = dict(graph.get_state(config).values)
    work.drawn.update(attempt["number"] for attempt in work.values.get("attempts", []))


def _delivered(work: Work, outcome: Outcome) -> Outcome:
    """Put the results where the user wanted them; if that fails the run has failed, and says why."""
    from pleinair.app.runs.results import Facts, deliver
    from pleinair.tools.storage.artifacts import ArtifactStore

    store = ArtifactStore(work.folder / "pictures")
    try:
        deliver(Facts(work.run, work.order, work.heading, work.snapshot, store), outcome)
    except PleinairError as fault:
        kept = f" The best picture is kept: {store.path(outcome.best.picture)}" if outcome.best else ""
        return outcome.model_copy(update={"ending": "failed", "reason": f"{fault}{kept}"})
    return outcome
