"""MLLM calls of ImageRAG: the fewest and the most that its options allow."""

from __future__ import annotations

from pleinair.app.engines import declared_capabilities
from pleinair.app.estimate.cost import Range
from pleinair.app.settings import Settings
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.retrieval.rerank import EACH

REPAIRED = 2  # calls that one structured answer may take


def imagerag_calls(settings: Settings, images: Range) -> Range:
    """Count the calls of a run that generates `images`: at least for a draft that matches.

    The most is reached if every list of concepts fails but the last, every other answer is repaired, and a
    re-ranking sees as many concepts as the generator has slots. The note has the most without repairs.
    """
    options = settings.imagerag
    drafts = int(options.mode == "draft_first")
    assert images.high is not None
    rounds = max(int(images.high) - drafts, 0)
    # only several rounds are looked at
    decisions = drafts + (rounds if options.rounds > 1 else 0)
    lists, answers = _calls_per_round(options)
    reranks = 0 if options.rephrase_only else _reranks(options, _slots(settings))
    usual = decisions + rounds * (lists + answers + reranks)
    most = usual + (REPAIRED - 1) * (decisions + rounds * answers)
    note = "" if most == usual else f"at most {usual} if no answer needs a repair"
    return Range(low=1 if drafts else _least(options), high=most, note=note)


def _calls_per_round(options: ImageRAGOptions) -> tuple[int, int]:
    """Return the tries to list concepts, and the other answers without a re-ranking."""
    if options.rephrase_only:
        return 0, 1
    return {"captions": (options.tries, 1), "concepts": (options.tries, 0), "prompt": (0, 0)}[
        options.retrieve_by
    ]


def _reranks(options: ImageRAGOptions, slots: int) -> int:
    """Return the calls of a round's re-ranking: one a concept, or one for each hit without a caption."""
    if not options.rerank:
        return 0
    concepts = 1 if options.retrieve_by == "prompt" else max(slots, 1)
    return concepts * (2 * EACH if options.rerank == "captions" else 1)


def _slots(settings: Settings) -> int:
    slots = declared_capabilities(settings).slots
    return min(slots, 1) if settings.imagerag.template == "image" else slots


def _least(options: ImageRAGOptions) -> int:
    """Return the fewest calls of a run without a draft, which a list without concepts ends early."""
    lists, answers = _calls_per_round(options)
    listing = min(lists, 1 + answers) if lists else answers
    return listing + (options.rounds > 1)
