"""Steps of a run by name, read from its checkpoints: what `pleinair trace fork --at` takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pleinair.app.paths import Paths
from pleinair.app.runs.events import Call
from pleinair.app.runs.history import OWN, config_of
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.tools.types import BadInput, GenerateRequest, Usage

if TYPE_CHECKING:
    from langgraph.types import StateSnapshot

FIRST = "begin"  # of every graph; listed only where it changed something
GENERATE = "generate"  # the node that runs the request which a step before it has set
ACT = "act"  # the node that carries out calls of a driving model


@dataclass(frozen=True)
class Step:
    """The nodes that ran at once between two checkpoints."""

    names: tuple[str, ...]  # such as "critique:2", the second time that `critique` ran
    checkpoint: str  # the state before it
    attempt: int  # the image that it generated, judged or prepared
    usage: tuple[Usage, ...]  # what it spent; nothing if it was not finished
    calls: tuple[str, ...] = ()  # of a driving model, such as "retrieve 'hoopoe'"
    tasks: tuple[str, ...] = ()  # LangGraph's ids of the executions of the nodes
    request: GenerateRequest | None = None  # the image that a step of `generate` was to generate
    driven: GenerateRequest | None = None  # the image that a call of a driving model has generated

    @property
    def image(self) -> GenerateRequest | None:
        """The image of the step, whose references a fork can change."""
        return self.request or self.driven


def steps_of(run: Run, places: Paths) -> list[Step]:
    """List the steps that a run has begun, in their order; none when its checkpoints are gone.

    Raises `BadInput` when the graph is not installed any more.
    """
    from pleinair.app.runs.checkpoints import compiled, has_begun, open_saver

    if not has_begun(places, run.id):
        return []
    with open_saver(places, run.id) as saver:
        graph = compiled(read_request(run.request_json).graph, saver)
        history = list(graph.get_state_history(config_of(run.id)))[::-1]
        newest = graph.get_state(config_of(run.id)).values
    return _steps(history, newest)


def find_step(steps: list[Step], at: str) -> tuple[str, Step]:
    """Return a step by its name, or by its node's where that ran once; `BadInput` with the choices."""
    by_name = {name: step for step in steps for name in step.names}
    names = [name for name in by_name if at in (name, name.partition(":")[0])]
    if len(names) != 1:
        fault = "it ran more than once" if names else "no such step"
        choices = ", ".join(names or by_name) or "none has run"
        raise BadInput(f"step {at!r}: {fault}; wanted one of: {choices}")
    return names[0], by_name[names[0]]


def _steps(history: list[StateSnapshot], newest: dict[str, Any]) -> list[Step]:
    """Pair each state with the one after it."""
    counts, steps = Counter[str](), list[Step]()
    last_attempt = max(len(newest.get("attempts", ())) - 1, 0)
    afters = [*(snapshot.values for snapshot in history[1:]), newest]
    for before, after in zip(history, afters, strict=False):
        nodes = sorted({task.name for task in before.tasks} - {"__start__"})
        counts.update(nodes)
        if nodes and (nodes != [FIRST] or _inherited(after) != _inherited(before.values)):
            names = tuple(f"{node}:{counts[node]}" for node in nodes)
            steps.append(_step(before, after, names, last_attempt))
    return steps


def _inherited(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a fork takes over of a state."""
    return {name: value for name, value in values.items() if name not in OWN}


def _step(before: StateSnapshot, after: dict[str, Any], names: tuple[str, ...], last_attempt: int) -> Step:
    attempts, changed = before.values.get("attempts", []), after.get("attempts", [])
    request = before.values.get("request") if any(task.name == GENERATE for task in before.tasks) else None
    is_driven = len(changed) > len(attempts) and any(task.name == ACT for task in before.tasks)
    driven = changed[-1]["request"] if is_driven else None
    usage = after.get("usage", [])[len(before.values.get("usage", [])) :]
    return Step(
        names=names,
        checkpoint=before.config["configurable"]["checkpoint_id"],
        attempt=min(changed[-1]["number"] if changed != attempts else len(attempts), last_attempt),
        usage=tuple(map(Usage.model_validate, usage)),
        calls=tuple(_calls(before)),
        tasks=tuple(task.id for task in before.tasks),
        request=GenerateRequest.model_validate(request) if request else None,
        driven=GenerateRequest.model_validate(driven) if driven else None,
    )


def _calls(before: StateSnapshot) -> list[str]:
    """Return the calls that are carried out next, as many of those waiting as there are tasks for them."""
    from pleinair.agent.react.state import pending_calls

    tasks = sum(task.name == ACT for task in before.tasks)
    return [str(Call.of(call)) for call in pending_calls(before.values["messages"])[:tasks]] if tasks else []
