"""What differs between two runs, leaving out what differs always: ids, folders, durations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pleinair.app.api import find, home
from pleinair.app.runs.events import read
from pleinair.app.runs.request import read_order
from pleinair.app.runs.store import Run
from pleinair.app.trace.story import Scene, sent_part, tell
from pleinair.tools.types import Reference, Retrieval

SHORT = 12  # digits of a SHA-256
ABSENT = "–"
ASKED = ("prompt", "graph", "seed", "settings", "models")  # the facts that a run begins with


@dataclass(frozen=True)
class Difference:
    """Hold one thing that two runs have otherwise, in words; "–" where a run has it not."""

    what: str  # such as "attempt 1 · ledger · second thing"
    first: str
    second: str


def differ(first: str, second: str) -> list[Difference]:
    """Compare two runs by id, beginning or "last"; an empty list means that they are the same.

    Compared are prompt, graph, seed, settings and models, the last look-up for every concept, and of every
    attempt the prompt as sent, the seed, size and steps, the box painted anew, the references, the ledger and
    the picture itself; then how it ended. Raises `BadInput`.
    """
    one, two = (dict(_flat(_facts(name))) for name in (first, second))
    keys = dict.fromkeys([*one, *two])
    pairs = ((key, one.get(key, ABSENT), two.get(key, ABSENT)) for key in keys)
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def came_to_nothing(found: list[Difference]) -> str:
    """Name what two runs were told otherwise where the same came of it, "" where that differs too."""
    told = [one.what for one in found if one.what.partition(" · ")[0] in ASKED]
    return ", ".join(told) if len(told) == len(found) else ""


def unmoved(branch: Run) -> str:
    """Say that a fork came out as the run that it was taken from although it was told otherwise, else ""."""
    parent = read_order(branch.order_json).parent
    told = came_to_nothing(differ(parent.run, branch.id)) if parent else ""
    if not parent or not told:
        return ""
    return f"The same came out as of {parent.run}: {told} made no difference from {parent.step} on."


def _facts(name: str) -> dict[str, Any]:
    """Give what two runs are compared by."""
    run = find(name)
    order, story = read_order(run.order_json), tell(read(home().events(run.id)))
    outcome = run.outcome
    return {
        "prompt": order.prompt,
        "graph": order.graph,
        "seed": run.seed,
        "settings": order.settings.model_dump(mode="json", exclude={"paths"}),
        "models": story.heading.get("models", {}),
        "look-up": {
            one.concept: _look_up(one) for each in story.retrievals.values() for one in each.values()
        },
        **{scene.title.lower(): _attempt(scene) for scene in story.scenes},
        "ending": outcome.ending if outcome else run.status,
        "reason": outcome.reason if outcome else "",
        "best": outcome.best.number if outcome and outcome.best else ABSENT,
    }


def _attempt(scene: Scene) -> dict[str, Any]:
    sent = scene.attempt.request
    size = {"size": f"{sent.width}×{sent.height}", "steps": sent.num_inference_steps}
    return {
        **sent.model_dump(include={"prompt", "negative_prompt", "seed", "guidance_scale"}),
        **size,
        **({"painted anew": scene.painted, "box": str(sent.inpaint.box)} if sent.inpaint else {}),
        "reference": {one.concept: _reference(one) for one in sent.references},
        "ledger": {row.concept: f"{row.status} {row.confidence:.0%}" for row in scene.rows},
        "picture": scene.attempt.picture.sha256[:SHORT],
    }


def _look_up(one: Retrieval) -> str:
    return f"nothing taken, {one.reason}" if one.abstained else " ".join(hit.id for hit in one.hits)


def _reference(one: Reference) -> str:
    return " ".join(filter(None, (one.hit.id, one.picture.sha256[:SHORT], sent_part(one))))


def _flat(value: Any, *path: str) -> Iterator[tuple[str, str]]:
    """Give every leaf of a tree with its path."""
    if not isinstance(value, dict):
        yield " · ".join(path), str(value)
        return
    for key, inner in value.items():
        yield from _flat(inner, *path, str(key))
