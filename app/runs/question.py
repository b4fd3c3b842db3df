"""Question of a run that waits for approval, as text: its references have numbers, which answers may use."""

from __future__ import annotations

from collections.abc import Iterator

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.texts import short_caption
from pleinair.tools.types import BadInput, Hit


def hits_of(question: ApprovalRequest) -> list[Hit]:
    """Return the references that may be chosen, in the order of their numbers, which begin with 1."""
    hits = {hit.id: hit for retrieval in question.retrievals for hit in retrieval.hits}
    return list(hits.values())


def lines_of(question: ApprovalRequest) -> Iterator[str]:
    """Yield what is asked: the prompt, and each concept with its numbered references."""
    numbers = {hit.id: number for number, hit in enumerate(hits_of(question), 1)}
    used = {reference.concept: reference.hit.id for reference in question.references}
    if question.fault:
        yield f"not as answered: {question.fault}"
    yield f"{'draft' if question.before == 'draft' else 'image with references'}: {question.prompt}"
    for concept in question.concepts:
        yield f"{concept.name}:"
        hits = [hit for found in question.retrievals if found.concept == concept.name for hit in found.hits]
        for hit in hits:
            mark = "*" if used.get(concept.name) == hit.id else " "
            yield f" {mark}{numbers[hit.id]:>3}  {hit.id}  {short_caption(hit.caption)[:60]}  ({hit.license})"
        if not hits:
            yield "      no references"
    yield "(* proposed)" if used else "(no references are proposed)"


def hit_id(question: ApprovalRequest, value: str) -> str:
    """Return the id of a reference by its id or number; raises `BadInput`."""
    hits = hits_of(question)
    if value in {hit.id for hit in hits}:
        return value
    if value.isdecimal() and 1 <= int(value) <= len(hits):
        return hits[int(value) - 1].id
    accepted = f"a number from 1 to {len(hits)}, an id or an image file" if hits else "an image file"
    raise BadInput(f"{value!r}: no reference of this run; accepted: {accepted}")
