"""Estimate of what an attribution still takes, by what past runs of its kind took."""

from __future__ import annotations

from collections.abc import Iterator

from pleinair.app.estimate.cost import Range
from pleinair.app.estimate.estimate import RETRIED, estimate_work
from pleinair.app.texts import counted
from pleinair.app.trace.attribute import Plan

LABELS = {"pictures": "images", "calls": "MLLM calls", "usd": "US dollars"}


def estimate_attribution(plan: Plan) -> dict[str, Range]:
    """Return what is still to be spent, by the fields of `Estimate`; builds no engine and writes nothing."""
    least = plan.critiques + (not plan.stored.concepts)
    images = Range(low=plan.images, high=plan.images)
    work = estimate_work(plan.request, plan.places, images, Range(low=least, high=RETRIED * least))
    nothing = dict.fromkeys(work, Range(low=0, high=0))  # no engine is built
    return work if plan.images or least else nothing


def attribution_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of an estimate for a terminal."""
    references = counted(len(plan.stored.references), "reference")
    yield f"run {plan.run.id}, attempt {plan.best.number}: {references}. Nothing is generated."
    yield from (part.line(LABELS.get(name, name)) for name, part in estimate_attribution(plan).items())
