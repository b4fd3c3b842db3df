"""Graph of a run, executed from its last checkpoint into its log."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.agent.state import UNTRACKED
from pleinair.app.engines import backend_choices, build, devices_of, on_device
from pleinair.app.parts import NO_PARTS, PROGRAM, Parts, has_own_retriever
from pleinair.app.paths import Paths
from pleinair.app.runs.ahead import Ahead
from pleinair.app.runs.events import (
    Answered,
    Call,
    EventLog,
    Payload,
    Progress,
    Resumed,
    Started,
    StepFinished,
    StepStarted,
)
from pleinair.app.runs.history import chat_input, config_of, copy_parent
from pleinair.app.runs.lease import Lease
from pleinair.app.runs.request import DrawRequest
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import LeaseLost
from pleinair.app.settings import BackendChoice, OnPreview, Settings
from pleinair.tools.callbacks import StopCheck
from pleinair.tools.deadline import check_deadline
from pleinair.tools.retrieval.changes import IndexAge
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.tracing import without_images
from pleinair.tools.types import Outcome

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Command

    from pleinair.agent.context import Context
    from pleinair.app.runs.calls import CallLog
    from pleinair.app.runs.checkpoints import Graph

End = Outcome | ApprovalRequest  # of a run's work

STEPS = 110  # per image; `react` takes at most 6 replies of 17 steps, and its own limits stop it earlier
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
    library: IndexAge | None = None  # once the run has ended
    numbers: set[int] = field(default_factory=set)  # of the attempts so far
    device: str = ""  # that is held for the generator
    ahead: Ahead | None = None  # images that runs of the same request have drawn for this one
    spare_devices: bool = False  # whether another one may take over if the generator's process dies
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
            "library": self.library,
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


def stored_state(work: Work) -> dict[str, Any]:
    """Return the state of a run's last checkpoint; {} if there is none."""
    from pleinair.app.runs.checkpoints import compiled, open_saver

    with open_saver(work.places, work.run.id, work.lease.guard, work.lease.fence) as saver:
        graph = compiled(work.request.graph, saver)
        return dict(graph.get_state(config_of(work.run.id)).values)


def stream(work: Work) -> End:
    """Run the graph from its last checkpoint, or from the input if there is none; return how it ended."""
    from pleinair.app.runs.checkpoints import compiled, open_saver

    with open_saver(work.places, work.run.id, work.guard, work.lease.fence) as saver:
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
    store = ArtifactStore(work.places.pictures(work.run.id))
    for reference in answer.given:
        store.adopt(reference.picture, ArtifactStore(work.places.input_images))
    work.write(Answered(answer=answer))
    return Command(resume={question.id: answer.model_dump(mode="json")})


def _build_context(work: Work) -> Context:
    """Build the backends, and store their labels."""
    from pleinair.tools.worker.worker import started

    work.check()
    work.places.require_objects()  # before anything is paid for
    store = ArtifactStore(work.places.pictures(work.run.id))
    store.sweep()  # what a previous holder has left, which is dead
    for picture in work.request.input_images:
        store.adopt(picture, ArtifactStore(work.places.input_images))
    settings = work.request.settings
    context = build(
        on_device(settings, work.device) if work.device and devices_of(settings) else settings,
        work.places,
        store,
        on_step=StopCheck(work.check),
        on_index=_IndexProgress(work),
        parts=work.parts,
    )
    work.models = _labels(settings)
    work.models["generator"] = started(context.generator, context.on_step).capabilities.id
    if work.ahead and settings.budget.seconds is None:
        context = replace(context, generator=work.ahead.sharing(context.generator))
    return replace(context, previews=work.on_preview is not None)


def _labels(settings: Settings) -> dict[str, str]:
    """Return what the settings call each backend; an own retriever takes the encoder's place."""
    labels: dict[str, str] = {kind: choice.label for kind, choice in backend_choices(settings).items()}
    if has_own_retriever(settings):
        del labels["encoder"]
        labels["retriever"] = BackendChoice(backend=PROGRAM, **settings.retrieval.arguments).label
    return labels


class _IndexProgress:
    """`StopCallback` that logs the progress of the library's index, at most 100 times."""

    def __init__(self, work: Work) -> None:
        self._write, self.check = work.write, work.check

    def __call__(self, done: int, total: int) -> None:
        self.check()
        if done == total or (done and done % max(total // 100, 1) == 0):
            self._write(Progress(done=done, total=total), "index")


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
        work.calls = CallLog(work.places.files(work.run.id), lambda: len(work.numbers))
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
