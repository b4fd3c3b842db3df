"""What a generator has not declared is refused, by the verb and again by each engine of ours."""

from __future__ import annotations

from pleinair.tools.types import BadInput, Capabilities, Repaint, Request


def check_request(request: Request, able: Capabilities, given: int) -> None:
    """Refuse a request that a generator cannot take, before anything is drawn or paid for.

    Args:
        request: what is asked for.
        able: what the generator declares.
        given: how many references come with it.

    Raises:
        BadInput: a size in no multiple of what is declared, more references than slots, a negative prompt or
            a box where there is none, or a box that is not inside a picture of the request's size.
    """
    check_size(request.height, request.width, able.multiple_of, f"`{able.id}`")
    if given > able.slots and not request.repaint:  # for a box only its own concept's are shown
        raise BadInput(f"`{able.id}` takes {able.slots} references, got {given}.")
    if request.negative_prompt and not able.negative_prompt:
        raise BadInput(f"`{able.id}` has no negative prompt, got {request.negative_prompt!r}.")
    if request.repaint:
        _check_repaint(request, request.repaint, able)


def check_size(height: int, width: int, unit: int, name: str) -> None:
    """Refuse a size that is no multiple of the unit, in pixels, in which a class draws."""
    if height % unit or width % unit:
        raise BadInput(f"{name} draws in multiples of {unit} pixels, asked for {width} × {height}.")


def _check_repaint(request: Request, repaint: Repaint, able: Capabilities) -> None:
    if not able.inpaint:
        raise BadInput(f"`{able.id}` cannot paint a box of a picture anew.")
    picture, (x0, y0, x1, y1) = repaint.picture, repaint.box
    if (picture.width, picture.height) != (request.width, request.height):
        size = f"{picture.width} × {picture.height}"
        raise BadInput(f"The picture has {size} pixels, asked for {request.width} × {request.height}.")
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise BadInput(
            f"The box {repaint.box} is not inside the picture: wanted 0 ≤ x0 < x1 ≤ 1, y likewise."
        )
    shown = sum(one.concept == repaint.concept for one in request.references)
    if shown > able.inpaint_slots:
        raise BadInput(f"`{able.id}` takes {able.inpaint_slots} references for a box, got {shown}.")
