"""Tell a model in its prompt which reference shows what, in the words that its family reads.

OmniGen's prompts hold a placeholder for each picture. Models that edit pictures are spoken to of "image 1";
without such a sentence they must guess which picture belongs to which words. Not covered: roles other than
showing a concept, such as a style.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pleinair.tools.types import BadInput

SHOWS = "Image {number} shows {concept}."


def with_sentences(prompt: str, concepts: Sequence[str], sentence: str, first: int = 1) -> str:
    """Give a prompt with a sentence behind it for each reference; an empty sentence leaves it as it is.

    Args:
        prompt: any.
        concepts: what the references show, in their order.
        sentence: with `{number}` and `{concept}` for what is to be filled in.
        first: the first one's number; 2 where a picture that is painted in comes before them.
    """
    if not sentence or not concepts:
        return prompt
    said = [sentence.format(number=number, concept=concept) for number, concept in enumerate(concepts, first)]
    whole = prompt if prompt.endswith((".", "!", "?")) else f"{prompt}."
    return " ".join([whole, *said])


def checked(sentence: str) -> str:
    """Give a sentence that can be filled in; raise `BadInput` for another."""
    try:
        sentence.format(number=1, concept="a concept")
    except (LookupError, ValueError, AttributeError):
        raise BadInput(
            f"generator.wording = {sentence!r}: wanted a sentence with {{number}} and {{concept}}"
        ) from None
    return sentence


def with_placeholders(prompt: str, concepts: Sequence[str], count: int, placeholder: str) -> str:
    """Give a prompt that has each reference's placeholder; one that names them all is left as it is.

    Args:
        prompt: with all placeholders, 1 to `count`, or with none.
        concepts: what the references show, in their order; may be shorter than `count`.
        count: references given.
        placeholder: with `{}` for the number.

    Raises:
        BadInput: the prompt names other references than those given.
    """
    pattern = re.escape(placeholder).replace(re.escape("{}"), r"(\d+)")
    named = {int(number) for number in re.findall(pattern, prompt)}
    if named == set(range(1, count + 1)):  # without references: a prompt that names none
        return prompt
    if named:
        raise BadInput(f"The prompt names references {sorted(named)}, but {count} are given: {prompt!r}.")
    places = [placeholder.format(number) for number in range(1, count + 1)]
    said = [f"{concept}: " for concept in concepts[:count]] + [""] * (count - len(concepts))
    pairs = ", ".join(f"{what}{place}" for what, place in zip(said, places, strict=True))
    return f"According to these images of {pairs}, generate {prompt}"
