"""What a picture cost, told by the engine that drew it, on the picture itself.

It is kept beside the picture in a store, so that a step that is resumed knows what was paid. Not covered:
what a server charged for a picture that never arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pleinair.tools.types import Usage

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.prices import Price

KEY = "pleinair.spent"  # of the picture's `info`, which no file can fill with a `Usage`


def charged(image: Image, spent: Usage) -> Image:
    """Write on a picture what it cost."""
    image.info[KEY] = spent
    return image


def spent_on(image: Image) -> Usage:
    """Read what a picture cost; nothing where its engine told nothing."""
    found = image.info.get(KEY)
    return found if isinstance(found, Usage) else Usage()


def by_tokens(used: Any, price: Price) -> Usage | None:
    """Price what the images API says it used; None where it says nothing that counts."""
    read, written = count(used, "input_tokens"), count(used, "output_tokens")
    seen = min(count(getattr(used, "input_tokens_details", None), "image_tokens"), read)
    return Usage(usd=price.usd(read - seen, written, seen)) if read or written else None


def count(used: Any, name: str) -> int:
    """Read a number of tokens; one that is none is 0."""
    value = getattr(used, name, 0)
    return value if isinstance(value, int) and value > 0 else 0
