"""Execution of a run from its row to its outcome, resumable after crashes."""

from __future__ import annotations

import threading
import time
import traceback
from base64 import b64decode
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.agent.state import UNTRACKED
from pleinair.app.engines import DEVICE, backend_choices, build, import_libraries, index_folder
from pleinair.app.parts import (
    NO_PARTS,
    PROGRAM,
    OwnParts,
    Parts,
    has_own_retriever,
    has_parts,
    require_parts,
)
from pleinair.app.paths import Paths
from pleinair.app.runs.device import device_held, device_of
from pleinair.app.runs.events import (
    Answered,
    Asked,
    Call,
    Ended,
    EventLog,
    OnEvent,
    Payload,
    Progress,
    Resumed,
    Snapshot,
    Started,
    StepFinished,
    StepStarted,
    payloads,
    read_readable,
)
from pleinair.app.runs.history import chat_input, config_of, copy_parent
from pleinair.app.runs.lease import STOPPED, Lease, Released
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.results import deliver, versions
from pleinair.app.runs.store import ACCEPT, Busy, Finished, LeaseLost, Run, Runs, Waiting
from pleinair.app.settings import BackendChoice, OnPreview, Settings
from pleinair.tools.callbacks import StopCheck
from pleinair.tools.deadline import RUN_WAIT, OutOfTime, check_deadline, deadline, finish_in_time
from pleinair.tools.registry import resolve
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import sweep_parts
from pleinair.tools.tracing import without_images
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Cancelled,
    Ending,
    Limit,
    Outcome,
    PleinairError,
    Refused,
    Usage,
    limit_reached,
)

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Command

    from pleinair.agent.context import Context
    from pleinair.app.runs.calls import CallLog
    from pleinair.app.runs.checkpoints import FencedSaver

    Graph = CompiledStateGraph[Any, Any, Any, Any]

End = Outcome | ApprovalRequest  # of a run's work

STEPS = 110  # per image; `react` takes at most 6 replies of 17 steps, and its own limits stop it earlier
MOST_DEATHS = 3  # of the processes of a run, after which it is not tried again
ACCEPTED = "you accepted this image"  # reasons of endings that a person requested
MODES: Final = ("tasks", "updates", "custom")
SAVED = ("concepts", "attempts", "retrievals", "usage")  # fields of the state, in snapshots


@dataclass
class Work:
    """Resources and results of the process that holds a run."""

    run: Run
    request: DrawRequest
    places: Paths
    lease: Lease
    log: EventLog
    on_preview: OnPreview | None = None  # None: no previews are made
    parts: Parts = NO_PARTS  # of the program
    values: dict[str, Any] = field(default_factory=dict)  # state of the last checkpoint
    models: dict[str, str] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)  # of the attempts so far
    left_behind: threading.Event = field(default_factory=threading.Event)  # its thread may write no more
    calls: CallLog | None = None  # None: the messages of MLLM calls are not stored

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.places.run(self.run.id)

    @property
    def snapshot(self) -> dict[str, Any]:
        """Fields of `Snapshot`, from the row and the checkpoint."""
        parent = self.request.parent
        return {
            "run": self.run.id,
            "prompt": self.request.prompt,
            "graph": self.request.graph,
            "seed": self.run.seed,
            "parent": parent and {"run": parent.run, "step": parent.step},
            "models": self.models,
            "prompt_options": self.request.prompt_options,
            "notes": self.request.notes,
            **{key: self.values[key] for key in SAVED if key in self.values},
        }

    def write(self, payload: Payload, step: str = "") -> None:
        """Append to the log."""
        self._check_current()
        self.log.write(payload, step, len(self.numbers))

    def guard(self) -> None:
        """Raise `LeaseLost` if another holder, or another thread of this one, works on the run."""
        self._check_current()
        self.lease.guard()

    def _check_current(self) -> None:
        if self.left_behind.is_set():
            raise LeaseLost(f"run {self.run.id} has ended without this step")

    def check(self) -> None:
        """Raise what stops the run: another holder, a request to cancel, the deadline."""
        self.guard()
        self.lease.check()
        check_deadline()

    def read_state(self, graph: Graph) -> None:
        """Read the state from the checkpoint, with the writes of finished tasks of an interrupted step."""
        self.values = dict(graph.get_state(config_of(self.run.id)).values)
        self.numbers.update(attempt["number"] for attempt in self.values.get("attempts", []))


def perform(
    runs: Runs,
    run: Run,
    places: Paths,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    *,
    reopen: bool = False,
    stop: threading.Event | None = None,
    parts: OwnParts | None = None,
) -> Run:
    """Run or continue a run until it ends, and return its row.

    Previews are made for `on_preview` unless the settings disable them, and are not logged. `budget.seconds`
    counts from this call, without the imports of libraries, and ends the run within 5 s more. Raises `Busy`
    or `LeaseLost` if another process has the run, `Finished` if it has ended, and `Released` after the step
    in which `stop` was set: the next call goes on from there. Raises `BadInput` for a run whose program has
    not handed over its `parts`, which only end a run that is to be cancelled.
    """
    started = time.monotonic()
    request = read_request(run.request_json)
    ends = run.cancel_requested and not reopen
    checked = NO_PARTS if ends else require_parts(request.settings, parts or {}, f"run {run.id}")
    with runs, _traced(run.id, request, places), Lease(runs, run.id, reopen=reopen, stop=stop) as lease:
        with closing(EventLog(places.events(run.id), on_event)) as log:
            previews = on_preview if request.settings.output.previews else None
            work = Work(run, request, places, lease, log, previews, checked)
            work, end_of_work = _given_up(work) or _ended_by_person(work) or _run_on_device(work, started)
            if isinstance(end_of_work, ApprovalRequest):
                work.write(Asked(question=end_of_work))
                if lease.wait(end_of_work):
                    return runs.get(run.id)
            outcome = _as_requested(work, end_of_work)
            _set_encoder_id(work)
            end = _deliver(work, outcome)
            lease.guard()
            work.write(end)
            lease.commit(end.outcome)
    return runs.get(run.id)


@contextmanager
def _traced(run_id: str, request: DrawRequest, places: Paths) -> Iterator[None]:
    """Send what has happened in the block to the configured collector, if any, unless others have the run."""
    try:
        yield
    except (Busy, Finished, LeaseLost, Waiting):
        raise
    except BaseException:
        _send_trace(run_id, request, places)
        raise
    _send_trace(run_id, request, places)


def _send_trace(run_id: str, request: DrawRequest, places: Paths) -> None:
    if request.settings.tracing.otlp:
        resolve("exporter", "otlp")(run_id, places)


def _given_up(work: Work) -> tuple[Work, Outcome] | None:
    """Return the outcome of a run whose processes died again and again, None for any other."""
    if (deaths := work.lease.guard().deaths) < MOST_DEATHS or not (rest := _as_logged(work)):
        return None
    by_program = has_parts(work.request.settings)
    command = "Its program, by `resume`," if by_program else f"`pleinair runs resume {work.run.id}`"
    remedy = f"{command} tries it once more."
    return rest, _failure("failed", PleinairError(f"its process died {deaths} times", remedy), rest)


def _ended_by_person(work: Work) -> tuple[Work, Outcome] | None:
    """Return the outcome of a run whose end a person requested before its next step, None for any other.

    A fork that has not begun has the images of its parent, which it first has to copy.
    """
    has_begun = (work.folder / "checkpoints.sqlite").exists()
    if not work.lease.guard().cancel_requested or (work.request.parent and not has_begun):
        return None
    rest = _as_logged(work)
    return (rest, _failure("cancelled", Cancelled(STOPPED), rest)) if rest else None


def _as_logged(work: Work) -> Work | None:
    """Return the work as its last holder left it: the state of the checkpoint, the models of the log.

    None for a damaged checkpoint, which the run itself reports.
    """
    try:
        values = _stored_state(work)
    except BadInput:
        return None
    snapshots = payloads(read_readable(work.places.events(work.run.id)).events, Snapshot)
    models = next((logged.models for logged in reversed(snapshots) if logged.models), {})
    return replace(work, values=values, models=models)


def _as_requested(work: Work, end: End) -> Outcome:
    """Return how a run ends: as accepted, whatever else has happened, if a person accepted its best image."""
    from pleinair.agent.ledger import best

    attempts = [Attempt.model_validate(attempt) for attempt in work.values.get("attempts", [])]
    if attempts and work.lease.guard().cancel_requested == ACCEPT:
        return Outcome(ending="accepted", reason=ACCEPTED, accepted_by="person", best=best(attempts))
    return _failure("cancelled", Cancelled(STOPPED), work) if isinstance(end, ApprovalRequest) else end


def _run_on_device(work: Work, started: float) -> tuple[Work, End]:
    """Run the graph while the generator's device is held; the wait for it counts no seconds."""
    asked = time.monotonic()
    try:
        with _device_held(work):
            return _run_in_time(work, started + time.monotonic() - asked)
    except Cancelled as error:  # while it waited
        rest = replace(work, values=_stored_state(work))
        return rest, _failure("cancelled", error, rest)


def _run_in_time(work: Work, started: float) -> tuple[Work, End]:
    """Run the graph within the budget's seconds; return what its thread, or the one after it, worked with."""
    seconds = work.request.settings.budget.seconds
    if seconds is None:
        return work, _run(work)
    seconds -= time.monotonic() - started
    import_libraries(work.request.settings, work.request.graph)
    with deadline(seconds - _seconds_before(work)):
        try:
            return work, finish_in_time(lambda: _run(work), RUN_WAIT)
        except OutOfTime as error:
            work.left_behind.set()
            rest = replace(work, left_behind=threading.Event(), values=_stored_state(work))
            return rest, _failure("stopped", error, rest, "seconds")


def _stored_state(work: Work) -> dict[str, Any]:
    """Return the state of a run's last checkpoint; {} if there is none."""
    from pleinair.app.runs.checkpoints import open_saver

    with open_saver(work.folder / "checkpoints.sqlite", work.lease.guard) as saver:
        graph = compiled(work.request.graph, saver)
        return dict(graph.get_state(config_of(work.run.id)).values)


def _seconds_before(work: Work) -> float:
    """Return the seconds that earlier holders of the run spent on its steps."""
    if not (work.folder / "checkpoints.sqlite").exists():
        return 0.0
    try:
        usage = [Usage.model_validate(part) for part in _stored_state(work).get("usage", [])]
    except (PleinairError, ValueError):
        return 0.0  # damaged: the run itself reports it
    return Usage.total(usage).seconds


def _run(work: Work) -> End:
    """Run the graph to its outcome or a question, and convert errors into an outcome."""
    try:
        return _stream(work)
    except (LeaseLost, Released):
        raise
    except OutOfTime as error:
        return _failure("stopped", error, work, "seconds")
    except PleinairError as error:
        cancelled, refused = isinstance(error, Cancelled), isinstance(error, Refused)
        return _failure("cancelled" if cancelled else "refused" if refused else "failed", error, work)
    except Exception as error:  # the only place where a bug becomes an outcome instead of a crash
        with suppress(OSError):  # a full disk must not hide the bug itself
            (work.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return _failure("failed", PleinairError(f"{type(error).__name__}: {error}".removesuffix(": ")), work)


def _failure(ending: Ending, error: PleinairError, work: Work, limit: Limit | None = None) -> Outcome:
    """Return an outcome with the best attempt of the checkpoint.

    The usage of the failed step, which is in no checkpoint, is added to that of the run.
    """
    from pleinair.agent.ledger import best

    if error.spent != Usage():
        work.values["usage"] = [*work.values.get("usage", []), error.spent.model_dump(mode="json")]
    attempts = [Attempt.model_validate(attempt) for attempt in work.values.get("attempts", [])]
    reason = str(error)[:2000] or "no reason given"
    if limit:
        reason = limit_reached(limit, getattr(work.request.settings.budget, limit))
    return Outcome(ending=ending, reason=reason, limit=limit, best=best(attempts))


def _stream(work: Work) -> End:
    """Run the graph from its last checkpoint, or from the input if there is none; return how it ended."""
    from pleinair.app.runs.checkpoints import open_saver

    with open_saver(work.folder / "checkpoints.sqlite", work.guard) as saver:
        graph = compiled(work.request.graph, saver)
        fresh, parent = saver.get_tuple(config_of(work.run.id)) is None, work.request.parent
        graph_input = _graph_input(work) if fresh else None
        try:
            if graph_input and parent:
                copy_parent(work.run.id, parent, graph_input, saver, work.places)
                graph_input = None
            work.read_state(graph)
            context = _build_context(work)
            work.write((Started if fresh else Resumed).model_validate(work.snapshot))
            _follow(work, graph, graph_input or _answer(work, graph), context)
        finally:
            work.read_state(graph)
        if question := _question(work, graph):
            return question
    if not work.values.get("outcome"):
        raise RuntimeError(f"graph {work.request.graph!r} ended without an outcome")
    return Outcome.model_validate(work.values["outcome"])


@contextmanager
def _device_held(work: Work) -> Iterator[None]:
    """Hold the device that the generator needs, if any; the number of runs ahead is logged."""
    device, logged = device_of(work.request.settings), 0

    def wait(ahead: int) -> None:
        nonlocal logged
        work.check()
        if ahead != logged:
            work.write(Progress(ahead=ahead), "device")
        logged = ahead

    folder = work.places.home / "devices"
    with device_held(folder, device, wait, DEVICE.unload) if device else nullcontext():
        yield


def _question(work: Work, graph: Graph) -> ApprovalRequest | None:
    """Return the question that the graph waits for, None if it waits for none."""
    for interrupt in graph.get_state(config_of(work.run.id)).interrupts:
        return ApprovalRequest.model_validate(interrupt.value | {"id": interrupt.id})
    return None


def _answer(work: Work, graph: Graph) -> Command[Any] | None:
    """Return the input that answers the question which the graph waits for, None without an answer."""
    from langgraph.types import Command

    question = _question(work, graph)
    answer = question and work.lease.guard().answer_to(question.id)
    if not (question and answer):
        return None
    store = ArtifactStore(work.folder / "pictures")
    for reference in answer.given:
        store.adopt(reference.picture, ArtifactStore(work.places.input_images))
    work.write(Answered(answer=answer))
    return Command(resume={question.id: answer.model_dump(mode="json")})


def compiled(name: str, saver: FencedSaver) -> Graph:
    """Compile a graph of the registry with a checkpointer."""
    from langgraph.graph import StateGraph

    # not by the builder's own method: the request has been validated
    graph: Graph = StateGraph.compile(resolve("graph", name).builder, checkpointer=saver, name=name)
    return graph


def _build_context(work: Work) -> Context:
    """Build the backends, and store their labels."""
    from pleinair.tools.worker.worker import started

    work.check()
    sweep_parts(work.folder / "pictures" / "parts", older_than=0)  # of a previous holder, which is dead
    store = ArtifactStore(work.folder / "pictures")
    for picture in work.request.input_images:
        store.adopt(picture, ArtifactStore(work.places.input_images))
    context = build(
        work.request.settings,
        work.places,
        store,
        on_step=StopCheck(work.check),
        on_index=_IndexProgress(work),
        parts=work.parts,
    )
    work.models = _labels(work.request.settings)
    work.models["generator"] = started(context.generator, context.on_step).capabilities.id
    return replace(context, previews=work.on_preview is not None)


def _labels(settings: Settings) -> dict[str, str]:
    """Return what the settings call each backend; an own retriever takes the encoder's place."""
    labels: dict[str, str] = {kind: choice.label for kind, choice in backend_choices(settings).items()}
    if has_own_retriever(settings):
        del labels["encoder"]
        labels["retriever"] = BackendChoice(backend=PROGRAM, **settings.retrieval.arguments).label
    return labels


def _graph_input(work: Work) -> dict[str, Any]:
    request = work.request
    pictures = [picture.model_dump(mode="json") for picture in request.pictures]
    return {
        "prompt": request.prompt,
        "seed": work.run.seed,
        "run_id": work.run.id,
        "budget": request.settings.budget.model_dump(mode="json"),
        **({"pictures": pictures} if pictures else {}),
        **({"base": request.base.model_dump(mode="json")} if request.base else {}),
        **(chat_input(work.run.id, request.thread, work.places) if request.thread else {}),
    }


def _follow(
    work: Work, graph: Graph, graph_input: dict[str, Any] | Command[Any] | None, context: Context
) -> None:
    """Stream the graph into the log; stop between steps if the run is cancelled.

    Running steps are awaited, so that results that were paid for are stored; generation stops at its next
    diffusion step.
    """
    from pleinair.app.runs.calls import CallLog

    steps = STEPS * (work.request.settings.budget.attempts + 2)
    config: RunnableConfig = {**config_of(work.run.id), "recursion_limit": steps, "max_concurrency": 4}
    if work.request.settings.tracing.messages:
        work.calls = CallLog(work.folder, lambda: len(work.numbers))
        config["callbacks"] = [work.calls]
    parts = graph.stream(
        graph_input,
        config if context.trace_images else without_images(config),
        context=context,
        stream_mode=MODES,
        durability="sync",
        version="v2",
    )
    with closing(cast(Generator[Any, None, None], parts)):
        for part in parts:
            _log(work, part["type"], cast(dict[str, Any], part["data"]))
            work.guard()
            work.lease.check()  # not the deadline: the graph itself ends with its best image


def _log(work: Work, mode: str, data: dict[str, Any]) -> None:
    from langgraph.types import Overwrite

    if mode == "tasks" and "input" in data:
        task = data["input"]
        call = task.get("call") if isinstance(task, dict) else None
        work.write(StepStarted(call=Call.of(call) if call else None), data["name"])
    elif mode == "custom" and "preview" in data:
        if work.on_preview:
            work.on_preview(b64decode(data["preview"]))
    elif mode == "custom":
        work.write(Progress.model_validate(data), str(data.get("step", "")))
    elif mode == "updates":
        for step, update in data.items():
            if step == "__interrupt__":  # the question is logged when the run is released
                continue
            values = {
                key: value.value if isinstance(value, Overwrite) else value
                for key, value in (update or {}).items()
                if key not in UNTRACKED
            }
            calls = work.calls.finished(step) if work.calls else ()
            finished = StepFinished.model_validate({**values, "calls": calls})
            work.write(finished, step)
            work.numbers.update(attempt.number for attempt in finished.attempts)


class _IndexProgress:
    """`StopCallback` that logs the progress of the library's index, at most 100 times."""

    def __init__(self, work: Work) -> None:
        self._write, self.check = work.write, work.check

    def __call__(self, done: int, total: int) -> None:
        self.check()
        if done == total or (done and done % max(total // 100, 1) == 0):
            self._write(Progress(done=done, total=total), "index")


def _set_encoder_id(work: Work) -> None:
    """Replace the encoder's label by the id of its weights, read from the index, if it was used."""
    from pleinair.tools.retrieval.manifest import encoder_of

    if work.values.get("retrievals") and "encoder" in work.models:
        encoder = encoder_of(index_folder(work.request.settings, work.places))
        work.models["encoder"] = encoder or work.models["encoder"]


def _deliver(work: Work, outcome: Outcome) -> Ended:
    """Write the results to the request's folder; the run has failed if that is not possible."""
    store = ArtifactStore(work.folder / "pictures")
    end = Ended.model_validate(work.snapshot | {"outcome": outcome, "versions": versions()})
    try:
        deliver(work.run, work.request, end, store)
    except PleinairError as error:
        where = f" The best image is kept: {store.path(outcome.best.picture)}" if outcome.best else ""
        failed = outcome.model_copy(update={"ending": "failed", "reason": f"{error}{where}", "limit": None})
        return end.model_copy(update={"outcome": failed})
    return end
