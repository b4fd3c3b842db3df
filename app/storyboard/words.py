"""What both storyboards say alike: of concepts, of references, and where a mark goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pleinair.agent.repairs.leaks import LeakOptions, excess
from pleinair.app.trace.trace import AttemptTrace, Trace, crop_text, offload_text
from pleinair.tools.types import Box, Reference, Retrieval, Row

LABELS = {"generator": "Generator", "encoder": "Encoder", "mllm": "Chat model"}
REACH = 0.16  # of a box's shorter side: how far the mark of a corner goes
ROOM = 0.08  # of a box, left free on each side so that its marks do not touch what it is about
TOO_MUCH = {
    "background": "Its background came across too.",
    "whole picture": "The picture is nearly a copy of it.",
}


def listed(trace: Trace) -> str:
    """Head the list of concepts: a graph that keeps no ledger may list only what it found missing."""
    if any(scene.rows for scene in trace.attempt_traces):
        return "Must be visible"
    drawn_anew = [one for one in trace.attempts.values() if one.number]
    repaired = {repair.concept for one in drawn_anew for repair in one.repairs}
    repaired |= {repair.concept for repair in trace.repairs if trace.attempts}
    missing = bool(trace.concepts) and {one.name for one in trace.concepts} <= repaired
    return "Named as missing" if missing else "Concepts"


def scenes_of(trace: Trace) -> list[AttemptTrace]:
    """Return the attempts in their order; a single one is not marked as the best."""
    scenes = trace.attempt_traces
    return [replace(one, best=False) for one in scenes] if len(scenes) == 1 else scenes


def made_with(trace: Trace) -> dict[str, str]:
    """Return the id of the run, its parent if it is a fork, and its models."""
    parent = trace.run.parent
    fork = {"Fork": f"of {parent.run} at {parent.step}"} if parent else {}
    return {"Run": trace.run.run} | fork | {LABELS[kind]: name for kind, name in trace.run.models.items()}


def drawn(scene: AttemptTrace) -> str:
    """Return seconds and seed of an attempt, and its offload levels if the model was offloaded."""
    facts = (
        f"{scene.attempt.seconds:.1f} s",
        f"seed {scene.attempt.request.seed}",
        offload_text(scene.attempt),
    )
    return " · ".join(filter(None, facts))


def facts_of(one: Reference, scene: AttemptTrace, options: LeakOptions) -> list[str]:
    """Return the score and rank of a reference, its crop, its credit, and what came across too much."""
    hit = one.hit
    score = f"score {hit.score:.2f}, {scene.rank(one.concept, hit)}"
    credit = " · ".join(filter(None, (hit.license, hit.author, hit.source)))
    return [text for text in (score, crop_text(one), credit, _too_much(one, scene, options)) if text]


def _too_much(one: Reference, scene: AttemptTrace, options: LeakOptions) -> str:
    """Return what of a reference came across that should not have, "" for nothing."""
    leaks = scene.attempt.leaks
    found = [excess(leak, options) for leak in leaks if (leak.concept, leak.id) == (one.concept, one.hit.id)]
    return next((TOO_MUCH[what] for what in found if what), "")


def abstentions(scene: AttemptTrace) -> list[str]:
    """Return for which concepts retrieval abstained."""
    return [_abstention(found) for found in scene.retrievals if found.abstained]


def _abstention(found: Retrieval) -> str:
    """Return why retrieval abstained for a concept."""
    return f"Nothing taken for “{found.concept}”: {found.reason}"


def marked(scene: AttemptTrace) -> list[tuple[str, Row, Box]]:
    """List the boxes to be marked in a picture, with a label where there are several concepts.

    A box is drawn with room around it, inside the picture; the record keeps the true one. Of what is unsure
    nobody knows the place.
    """
    rows = [(number, row) for number, row in enumerate(scene.rows, 1) if row.box and row.status != "unsure"]
    several = len(scene.rows) > 1
    return [(str(number) if several else "", row, roomy(row.box)) for number, row in rows if row.box]


def roomy(box: Box) -> Box:
    """Widen a box on all sides, inside the picture."""
    x0, y0, x1, y1 = box
    wide, high = ROOM * max(x1 - x0, 0), ROOM * max(y1 - y0, 0)
    return max(x0 - wide, 0.0), max(y0 - high, 0.0), min(x1 + wide, 1.0), min(y1 + high, 1.0)


def corners(x0: float, y0: float, x1: float, y1: float) -> Iterator[tuple[float, ...]]:
    """Yield the marks of a box's four corners, each as x, y of an end, of the corner and of the other end."""
    reach = REACH * max(min(x1 - x0, y1 - y0), 0)
    for x, y, right, down in ((x0, y0, 1, 1), (x1, y0, -1, 1), (x1, y1, -1, -1), (x0, y1, 1, -1)):
        yield x, y + down * reach, x, y, x + right * reach, y
