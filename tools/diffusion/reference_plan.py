"""How many references fit beside the prompt: predicted tokens, and smaller references before memory runs out.

In an in-context model every reference lengthens the sequence that each step attends over: at 1024 pixels one
costs as many tokens as the picture. All here is arithmetic on sizes; no weights and no pixels are touched. A
reference that is cut down to its concept (`Reference.crop`) reaches the engine cut, and its size is the
crop's; a `Reference.box` is a place in the new picture and takes nothing away. Not covered: what a token
costs in bytes (`pleinair.tools.diffusion.memory` estimates it for some), and vision tokens in the text of a
class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pleinair.tools.types import BadInput

Size = tuple[int, int]  # width and height in pixels
SHARES = (1.0, 0.75, 0.5, 0.375, 0.25)  # of the declared size, tried in turn
LEAST = 4  # tokens a side; a reference under that shows nothing


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Declare how a class turns pictures and text into tokens.

    Args:
        unit: side of a token in pixels, the autoencoder's scale times the patch.
        text: tokens of the prompt, padded as the class does.
        area: pixels that the class scales each reference to; 0 where it takes it as it is.
        most: pixels over which it scales a reference down.
    """

    unit: int
    text: int
    area: int = 0
    most: int = 1024 * 1024

    def of(self, size: Size) -> int:
        """Count the tokens of a picture that is taken as it is."""
        width, height = size
        return (width // self.unit) * (height // self.unit)

    def of_reference(self, size: Size) -> int:
        """Count the tokens of a reference, after the class's own scaling."""
        area = self.area or min(size[0] * size[1], self.most)
        share = math.sqrt(area / (size[0] * size[1]))
        return self.of((round(size[0] * share), round(size[1] * share)))


@dataclass(frozen=True, kw_only=True)
class ReferencePlan:
    """Say how large the references are given, and how long the sequence will be.

    Args:
        size: longest side in pixels that a reference is scaled down to.
        tokens: of text, picture and references together.
    """

    size: int
    tokens: int


def fit(size: Size, longest: int) -> Size:
    """Give a picture's size after it is scaled down, never up, to a longest side in pixels."""
    share = min(1.0, longest / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def predict(tokens: Tokens, picture: Size, references: Sequence[Size], longest: int) -> int:
    """Predict the length of the sequence with the references scaled down to `longest`."""
    given = sum(tokens.of_reference(fit(size, longest)) for size in references)
    return tokens.text + tokens.of(picture) + given


def make_plan(
    tokens: Tokens, picture: Size, references: Sequence[Size], *, longest: int, limit: int | None = None
) -> ReferencePlan:
    """Give the largest size of the references whose sequence is within the limit.

    Args:
        tokens: what the class declares.
        picture: the size of the new picture.
        references: the sizes of the references as they are sent, crops as crops.
        longest: the declared longest side in pixels of a reference.
        limit: tokens in all; None is no limit.

    Raises:
        BadInput: even the smallest references, or none at all, are over the limit.
    """
    sizes = [longest, *(round(longest * share) for share in SHARES[1:] if references)]
    usable = [size for size in sizes if size == longest or size >= LEAST * tokens.unit]
    plans = [ReferencePlan(size=size, tokens=predict(tokens, picture, references, size)) for size in usable]
    fitting = [plan for plan in plans if limit is None or plan.tokens <= limit]
    if not fitting:
        raise BadInput(too_long(plans[-1], picture, len(references), limit or 0))
    return fitting[0]


def too_long(plan: ReferencePlan, picture: Size, references: int, limit: int) -> str:
    """Say by how much a plan is over the limit, and what to do."""
    width, height = picture
    given = f" with {references} references of {plan.size} pixels" if references else ""
    fewer = "fewer references or " if references else ""
    return (
        f"A picture of {width} × {height}{given} is a sequence of {plan.tokens} tokens, over the limit of "
        f"{limit} (generator.max_sequence): ask for {fewer}a smaller picture."
    )
