"""Request of an image without some of its references, with its prompt built anew by what has built it.

Prompts of ImageRAG and Cross-modal RAG number the references. They are built again by the functions of their
graphs, from the run's prompt and what it retrieved; before that, the prompt of all references is built and
must be the one that was sent. Placeholders of input images in a prompt are renumbered, and those of the ones
left out are removed. Not covered: numbers that a person or a driving model has written in plain words.
"""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.app.runs.request import DrawRequest
from pleinair.app.trace.trace import Trace
from pleinair.tools import crossmodal, imagerag
from pleinair.tools.prompt_options import image_numbers, renumbered
from pleinair.tools.types import INPUT_SOURCE, BadInput, GenerateRequest, Reference, Retrieval


def reduced(
    request: GenerateRequest, without: Sequence[Reference], draw_request: DrawRequest, trace: Trace
) -> GenerateRequest:
    """Return the request of an image without the references that are among `without`.

    Raises `BadInput` where the prompt numbers the references and cannot be built again.
    """
    references = tuple(reference for reference in request.references if reference not in without)
    if references == request.references:
        return request
    prompt = _prompt(request, references, draw_request, trace)
    return request.model_copy(update={"references": references, "prompt": prompt})


def _prompt(
    request: GenerateRequest, references: tuple[Reference, ...], draw_request: DrawRequest, trace: Trace
) -> str:
    if _has_template(draw_request) and request.prompt != draw_request.prompt:
        if _built(request, request.references, draw_request, trace) != request.prompt:
            raise BadInput(
                f"run {trace.run.run}: the prompt as sent numbers its references, and cannot be built again "
                "from what the run has stored",
                "Attribute the run that it was forked from, or draw it again.",
            )
        return _built(request, references, draw_request, trace)
    return _renumbered(request.prompt, request, references)


def _has_template(draw_request: DrawRequest) -> bool:
    """Return whether the graph puts references into words."""
    settings = draw_request.settings
    templates = {"imagerag": settings.imagerag.template, "crossmodal": settings.crossmodal.template}
    return templates.get(draw_request.graph, "plain") != "plain"


def _built(
    request: GenerateRequest, references: tuple[Reference, ...], draw_request: DrawRequest, trace: Trace
) -> str:
    """Return the prompt that the graph builds for these of the request's references."""
    prompt, settings = _renumbered(draw_request.prompt, request, references), draw_request.settings
    retrieved = [reference for reference in references if not _is_input(reference)]
    before = len(references) - len(retrieved)
    if draw_request.graph == "imagerag":
        captions = _captions(retrieved, trace)
        inputs = sum(map(_is_input, request.references))  # a person's prompt names no image after them
        placeholders = max(image_numbers(request.prompt), default=0) > inputs
        return imagerag.augment(
            settings.imagerag.template, prompt, captions, before, placeholders=placeholders
        )
    return crossmodal.instruct(settings.crossmodal.template, prompt, _served(retrieved, trace), before)


def _captions(references: Sequence[Reference], trace: Trace) -> list[str]:
    """Return the caption that each reference was retrieved by."""
    retrievals = {each.concept: each for each in trace.retrievals.values()}
    return [
        retrievals[each.concept].query_of(each.hit) if each.concept in retrievals else each.concept
        for each in references
    ]


def _served(references: Sequence[Reference], trace: Trace) -> list[list[str]]:
    """Return the sub-queries that each reference was a candidate for."""
    retrievals = {each.concept: each for each in trace.retrievals.values()}
    candidates = {
        concept.name: _candidates(retrievals[concept.name])
        for concept in trace.concepts
        if concept.name in retrievals
    }
    return [
        [name for name, ids in candidates.items() if reference.hit.id in ids] or [reference.concept]
        for reference in references
    ]


def _candidates(retrieval: Retrieval) -> list[str]:
    """Return the images that could serve a sub-query: all that contain it, or the best one by looks."""
    ids = [hit.id for hit in retrieval.hits if not retrieval.abstained and retrieval.accepts(hit)]
    by_looks = retrieval.threshold is not None
    return ids[:1] if by_looks else ids


def _renumbered(prompt: str, request: GenerateRequest, references: tuple[Reference, ...]) -> str:
    """Return a prompt whose placeholders name the input images that are left."""
    inputs = [reference for reference in request.references if _is_input(reference)]
    places = [number for number, each in enumerate(inputs, 1) if each in references]
    return renumbered(prompt, {old: new for new, old in enumerate(places, 1)}) if inputs else prompt


def _is_input(reference: Reference) -> bool:
    return reference.hit.source == INPUT_SOURCE
