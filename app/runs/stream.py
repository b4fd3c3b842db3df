"""Stream of a run's graph into its event log."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.agent.state import UNTRACKED
from pleinair.app.engines import backend_choices, build
from pleinair.app.runs.events import Answered, Call, Progress, Resumed, Started, StepFinished, StepStarted
from pleinair.app.runs.history import chat_input, config_of, copy_parent
from pleinair.app.runs.work import Work
from pleinair.tools.callbacks import StopCheck
from pleinair.tools.registry import resolve
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import sweep_parts
from pleinair.tools.tracing import without_images
from pleinair.tools.types import Outcome

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Command

    from pleinair.agent.context import Context
    from pleinair.app.runs.checkpoints import FencedSaver
    from pleinair.app.runs.work import Graph

End = Outcome | ApprovalRequest  # of a run's work

STEPS = 110  # per image; `react` takes at most 6 replies of 17 steps, and its own limits stop it earlier
MODES: Final = ("tasks", "updates", "custom")


def stream(work: Work) -> End:
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
    for picture in work.request.pictures:
        store.adopt(picture, ArtifactStore(work.places.input_images))
    context = build(
        work.request.settings,
        work.places,
        store,
        on_step=StopCheck(work.check),
        on_index=_IndexProgress(work),
    )
    work.models = {kind: choice.label for kind, choice in backend_choices(work.request.settings).items()}
    work.models["generator"] = started(context.generator, context.on_step).capabilities.id
    return replace(context, previews=work.on_preview is not None)


def _graph_input(work: Work) -> dict[str, Any]:
    request = work.request
    pictures = [picture.model_dump(mode="json") for picture in request.pictures]
    return {
        "prompt": request.prompt,
        "seed": work.run.seed,
        "run_id": work.run.id,
        "budget": request.settings.budget.model_dump(mode="json"),
        **({"pictures": pictures} if pictures else {}),
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
