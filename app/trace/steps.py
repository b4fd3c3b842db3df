"""The steps of a run by name, read from its checkpoints: what `pleinair trace fork --at` understands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pleinair.app.paths import Paths
from pleinair.app.runs.describe_call import worded
from pleinair.app.runs.request import read_order
from pleinair.app.runs.store import Run
from pleinair.tools.types import BadInput, Usage

if TYPE_CHECKING:
    from langgraph.types import StateSnapshot

FIRST = "begin"  # of every graph; told only where it changed something
ACT = "act"  # the node that carries out calls of a driving model


@dataclass(frozen=True)
class Step:
    """Hold what ran at once between two checkpoints."""

    names: tuple[str, ...]  # such as "critique:2", the second time that `critique` ran
    checkpoint: str  # the state before it
    attempt: int  # the picture that it drew, looked at or prepared
    usage: tuple[Usage, ...]  # what it spent; nothing if it was not finished
    calls: tuple[str, ...] = ()  # what the driving model had it do, such as "retrieve 'saverel wren'"


def steps_of(run: Run, places: Paths) -> list[Step]:
    """List the steps that a run has begun, in their order; none when its checkpoints are gone.

    Raises `BadInput` when the graph is not installed any more.
    """
    from pleinair.app.runs.checkpoints import open_saver
    from pleinair.app.runs.copy_history import thread
    from pleinair.app.runs.runner import compiled

    path = places.run(run.id) / "checkpoints.sqlite"
    if not path.exists():
        return []
    with open_saver(path, lambda: None) as saver:
        graph = compiled(read_order(run.order_json).graph, saver)
        told = list(graph.get_state_history(thread(run.id)))[::-1]
        now = graph.get_state(thread(run.id)).values
    return _steps(told, now)


def find_step(steps: list[Step], at: str) -> tuple[str, Step]:
    """Find a step by its name, or by its node's where that ran once; raises `BadInput` with the choices."""
    known = {name: step for step in steps for name in step.names}
    found = [name for name in known if at in (name, name.partition(":")[0])]
    if len(found) != 1:
        fault = "it ran more than once" if found else "no such step"
        raise BadInput(f"step {at!r}: {fault}; wanted one of: {', '.join(found or known) or 'none has run'}")
    return found[0], known[found[0]]


def _steps(told: list[StateSnapshot], now: dict[str, Any]) -> list[Step]:
    """Pair each state with the one after it."""
    counts, steps = Counter[str](), list[Step]()
    most = max(len(now.get("attempts", ())) - 1, 0)
    for before, after in zip(told, [*(one.values for one in told[1:]), now], strict=False):
        nodes = sorted({task.name for task in before.tasks} - {"__start__"})
        counts.update(nodes)
        if nodes and (nodes != [FIRST] or _own(after) != _own(before.values)):
            steps.append(_step(before, after, tuple(f"{node}:{counts[node]}" for node in nodes), most))
    return steps


def _own(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a state what a fork has of its own from there on."""
    from pleinair.app.runs.copy_history import ANEW

    return {name: value for name, value in values.items() if name not in ANEW}


def _step(before: StateSnapshot, after: dict[str, Any], names: tuple[str, ...], most: int) -> Step:
    old, new = (values.get("attempts", []) for values in (before.values, after))
    spent = after.get("usage", [])[len(before.values.get("usage", [])) :]
    return Step(
        names=names,
        checkpoint=before.config["configurable"]["checkpoint_id"],
        attempt=min(new[-1]["number"] if new != old else len(old), most),
        usage=tuple(Usage.model_validate(one) for one in spent),
        calls=tuple(_calls_of(before)),
    )


def _calls_of(before: StateSnapshot) -> list[str]:
    """List the calls that are carried out next, as many of those waiting as there are tasks for them."""
    from pleinair.agent.react.state import pending_calls

    acts = sum(task.name == ACT for task in before.tasks)
    return [worded(call) for call in pending_calls(before.values["messages"])[:acts]] if acts else []
