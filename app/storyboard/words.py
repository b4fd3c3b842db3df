"""Texts and box marks that the HTML and PNG storyboards share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from pleinair.agent.repairs.leaks import LeakOptions, excess
from pleinair.app.trace.prompts import Piece, word_changes
from pleinair.app.trace.trace import (
    AttemptTrace,
    Trace,
    crop_text,
    license_text,
    near_copies_text,
    offload_text,
    score_text,
)
from pleinair.tools.types import Box, Hit, Reference, Retrieval, Row

LABELS = {"generator": "Generator", "encoder": "Encoder", "mllm": "Chat model"}
REACH = 0.16  # of a box's shorter side: length of a corner mark
MARGIN = 0.08  # of a box: margin on each side between its marks and the object
LEAKS = {
    "background": "Its background came across too.",
    "whole picture": "The image is nearly a copy of it.",
}


def concepts_heading(trace: Trace) -> str:
    """Return the heading of the concepts; a graph without ledgers may list the missing ones only."""
    if any(attempt.rows for attempt in trace.attempt_traces):
        return "Must be visible"
    later = [attempt for attempt in trace.attempts.values() if attempt.number]
    repaired = {repair.concept for attempt in later for repair in attempt.repairs}
    repaired |= {repair.concept for repair in trace.repairs if trace.attempts}
    missing = bool(trace.concepts) and {concept.name for concept in trace.concepts} <= repaired
    return "Named as missing" if missing else "Concepts"


def attempts_of(trace: Trace) -> list[AttemptTrace]:
    """Return the attempts in their order; a single one is not marked as the best."""
    attempts = trace.attempt_traces
    return [replace(attempts[0], best=False)] if len(attempts) == 1 else attempts


def made_with(trace: Trace) -> dict[str, str]:
    """Return the id of the run, its parent if it is a fork, its models, and what of its log is damaged."""
    parent = trace.run.parent
    fork = {"Fork": f"of {parent.run} at {parent.step}"} if parent else {}
    models = {LABELS[kind]: name for kind, name in trace.run.models.items()}
    return {"Run": trace.run.run} | fork | models | ({"Damaged": trace.damage} if trace.damage else {})


def prompt_changes(attempt: AttemptTrace, before: AttemptTrace | None) -> list[Piece]:
    """Return the words of a prompt with those that it has not from the attempt before."""
    prompt = attempt.attempt.request.prompt
    return word_changes(before.attempt.request.prompt if before else prompt, prompt)


def generation_facts(attempt: AttemptTrace) -> str:
    """Return seconds and seed of an attempt, and its offload levels if the model was offloaded."""
    facts = (
        f"{attempt.attempt.seconds:.1f} s",
        f"seed {attempt.attempt.request.seed}",
        offload_text(attempt.attempt),
    )
    return " · ".join(filter(None, facts))


def image_settings(attempt: AttemptTrace) -> dict[str, str]:
    """Return the arguments of an attempt's image by label."""
    request = attempt.attempt.request
    strength = request.reference_strength
    facts = {
        "Seed": str(request.seed),
        "Size": f"{request.width} × {request.height}",
        "Steps": str(request.num_inference_steps),
        "Guidance": f"{request.guidance_scale:g}",
        "Reference strength": "" if strength is None else f"{strength:g}",
        "Negative prompt": request.negative_prompt,
        "Offload levels": offload_text(attempt.attempt),
    }
    return {label: text for label, text in facts.items() if text}


def hit_facts(attempt: AttemptTrace, retrieval: Retrieval, rank: int, hit: Hit) -> list[str]:
    """Return rank, score and license of a hit that is not in the image, and why if it is recorded."""
    ids = [other.id for other in retrieval.hits]
    used = [ids.index(id) + 1 for _, id in _used(attempt) if id in ids]
    reason = f"rank {rank}"
    if retrieval.abstained:
        reason += ", retrieval abstained"
    elif not retrieval.accepts(hit):
        reason += f", below the threshold {retrieval.threshold:.2f}"
    elif used and min(used) < rank:
        reason += ", after the selected one"
    return [reason, score_text(hit), " · ".join(filter(None, (license_text(hit), hit.author)))]


def _used(attempt: AttemptTrace) -> list[tuple[str, str]]:
    return [(item.concept, item.hit.id) for item in attempt.attempt.request.references]


def reference_facts(reference: Reference, attempt: AttemptTrace, options: LeakOptions) -> list[str]:
    """Return a reference's file, the model that captioned it, score and rank, crop, credit and leak."""
    hit = reference.hit
    is_input = hit.id == reference.picture.sha256
    name = "an input image" if is_input else file_name(hit)
    score = "" if is_input else f"{score_text(hit)}, {attempt.rank(reference.concept, hit)}"
    credit = " · ".join(filter(None, (license_text(hit), hit.author, "" if link(hit) else hit.source)))
    leak = _leak_text(reference, attempt, options)
    return [text for text in (name, caption_text(hit), score, crop_text(reference), credit, leak) if text]


def caption_text(hit: Hit) -> str:
    """Return which model wrote an image's caption, "" if none did."""
    return f"caption generated by {hit.caption_model}" if hit.caption_model else ""


def file_name(hit: Hit) -> str:
    """Return the name of a library image's file, without its folders."""
    return PurePosixPath(hit.id).name


def link(hit: Hit) -> str:
    """Return the source of an image if it is a web address, else ""."""
    return hit.source if re.match(r"https?://[^\s\"'<>\\]+\Z", hit.source) else ""


def _leak_text(reference: Reference, attempt: AttemptTrace, options: LeakOptions) -> str:
    key = reference.concept, reference.hit.id
    kinds = [excess(leak, options) for leak in attempt.attempt.leaks if (leak.concept, leak.id) == key]
    return next((LEAKS[kind] for kind in kinds if kind), "")


def abstentions(attempt: AttemptTrace) -> list[str]:
    """Return why retrieval abstained for concepts, and hits that are unreadable or were left out."""
    lines = []
    for retrieval in attempt.retrievals:
        if retrieval.abstained:
            lines.append(f"No reference for “{retrieval.concept}”: {retrieval.reason}")
        lines += [f"Not readable any more: {id}" for id in retrieval.unavailable]
        if retrieval.near_copies:
            lines.append(f"Left out for “{retrieval.concept}”: {near_copies_text(retrieval)}")
    return lines


def box_marks(attempt: AttemptTrace) -> list[tuple[str, Row, Box]]:
    """List the boxes to mark in an image with their rows, and with labels if there are several concepts.

    The boxes are widened by `MARGIN`; rows that are unsure have none.
    """
    rows = [(number, row) for number, row in enumerate(attempt.rows, 1) if row.box and row.status != "unsure"]
    several = len(attempt.rows) > 1
    return [(str(number) if several else "", row, _widened(row.box)) for number, row in rows if row.box]


def _widened(box: Box) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = MARGIN * max(x1 - x0, 0), MARGIN * max(y1 - y0, 0)
    return max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, 1.0), min(y1 + dy, 1.0)


def corners(x0: float, y0: float, x1: float, y1: float) -> Iterator[tuple[float, ...]]:
    """Yield the marks of a box's four corners, each as x, y of an end, of the corner and of the other end."""
    reach = REACH * max(min(x1 - x0, y1 - y0), 0)
    for x, y, right, down in ((x0, y0, 1, 1), (x1, y0, -1, 1), (x1, y1, -1, -1), (x0, y1, 1, -1)):
        yield x, y + down * reach, x, y, x + right * reach, y
