"""Edits: the transparent part of an image of the user's own is generated, and all else of it stays."""

from __future__ import annotations

from langgraph.runtime import Runtime

from pleinair.agent.context import Context
from pleinair.agent.nodes import Update, attempt, new_request
from pleinair.agent.state import EditState
from pleinair.tools.images.masks import masked_box
from pleinair.tools.types import GenerateRequest, Inpaint, Picture


def draft(state: EditState, runtime: Runtime[Context]) -> Update:
    """Generate an image of the prompt, or the transparent part of the base image."""
    request = new_request(state, runtime.context)
    if state.base:
        request = _edit(request, state.base, state, runtime.context)
    return attempt(state, runtime, request, ())


def _edit(request: GenerateRequest, base: Picture, state: EditState, context: Context) -> GenerateRequest:
    """Return the request for an edit; its size is the base's unless options set another, which is refused."""
    options = context.image.merged(state.image)
    box = masked_box(context.store.open(base, alpha=True))
    return request.model_copy(
        update={
            "width": options.width or base.width,
            "height": options.height or base.height,
            "inpaint": Inpaint(concept="", picture=base, box=box, masked=True),
        }
    )
