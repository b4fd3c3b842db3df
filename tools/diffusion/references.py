"""How references are sent: their size, their tokens in the sequence, and the words that announce them.

OmniGen's prompts contain a placeholder for each image. Editing models are told about "image 1"; without such
a sentence they must guess which image belongs to which words. An input image has no words of its own: the
prompt says what it is for. Not covered: roles other than showing a concept, such as a style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pleinair.tools.prompt_options import PLACEHOLDERS, check_placeholders, image_numbers
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]  # width and height in pixels

REFERENCE_SENTENCE = "Image {number} shows {concept}."
PLACEHOLDER = "<img><|image_{}|></img>"  # of OmniGen, for the number of an image, from 1
SHARES = (1.0, 0.75, 0.5, 0.375, 0.25)  # of the declared size, tried in this order
MIN_TOKENS = 4  # a side; a reference below that shows nothing


def append_sentences(prompt: str, concepts: Sequence[str], sentence: str, first: int = 1) -> str:
    """Return a prompt followed by a sentence for each reference; an empty sentence leaves it unchanged.

    Args:
        prompt: any prompt.
        concepts: what the references show, in their order; "" for one without a sentence.
        sentence: template with `{number}` and `{concept}`.
        first: number of the first reference; 2 if the image to inpaint precedes them.
    """
    numbered = [(number, concept) for number, concept in enumerate(concepts, first) if concept]
    if not sentence or not numbered:
        return prompt
    sentences = [sentence.format(number=number, concept=concept) for number, concept in numbered]
    return " ".join([prompt if prompt.endswith((".", "!", "?")) else f"{prompt}.", *sentences])


def check_sentence(sentence: str | None) -> str | None:
    """Return a sentence template that can be filled in, or None; raise `BadInput` for any other."""
    try:
        (sentence or "").format(number=1, concept="a concept")
    except (LookupError, ValueError, AttributeError):
        raise BadInput(
            f"generator.wording = {sentence!r}: wanted a sentence with {{number}} and {{concept}}"
        ) from None
    return sentence


def insert_placeholders(prompt: str, concepts: Sequence[str], count: int) -> str:
    """Return a prompt with a placeholder for each reference; those that it has stay, in OmniGen's form.

    Args:
        prompt: with any of the placeholders 1 to `count`; `<|image_1|>` stands for `<img><|image_1|></img>`.
        concepts: what the references show, in their order; "" if the prompt says it; may be shorter.
        count: number of references.

    Raises:
        BadInput: the prompt names other images than those sent.
    """
    check_placeholders(prompt, count)
    missing = [number for number in range(1, count + 1) if number not in image_numbers(prompt)]
    prompt = PLACEHOLDERS.sub(lambda match: PLACEHOLDER.format(int(match[1])), prompt)
    labels = dict(enumerate(concepts, 1))
    return announce({number: labels.get(number, "") for number in missing}, prompt)


def announce(labels: Mapping[int, str], prompt: str, kind: str = "images", place: str = PLACEHOLDER) -> str:
    """Return ImageRAG's sentence for references by their numbers, with what each shows, before a prompt.

    `kind` is the paper's "examples" or "images", as in the authors' program; `place` stands for an image.
    """
    if not labels:
        return prompt
    parts = [
        f"{label}: {place.format(number)}" if label else place.format(number)
        for number, label in labels.items()
    ]
    return f"According to these {kind} of {', '.join(parts)}, generate {prompt}"


def scale_reference(image: Image, longest: int, shortest: int = 1) -> Image:
    """Scale a reference down to a longest side: its tokens cost as much as the new image's.

    Where a side would have fewer pixels than `shortest`, as with a strip, white is added at both of its ends.
    """
    from PIL import ImageOps

    small = image.convert("RGB")
    small.thumbnail((longest, longest))
    if min(small.size) >= shortest:
        return small
    return ImageOps.pad(small, (max(small.width, shortest), max(small.height, shortest)), color="white")


@dataclass(frozen=True, kw_only=True)
class TokenRule:
    """How a pipeline class turns images and text into tokens."""

    unit: int  # side of a token in pixels: the autoencoder's scale times the patch
    text: int  # tokens of the prompt, padded as the class does
    area: int = 0  # pixels to which the class scales each reference; 0 if it takes it as it is
    max_area: int = 1024 * 1024  # pixels above which it scales a reference down

    def count(self, size: Size) -> int:
        """Return the tokens of an image that is not scaled."""
        return (size[0] // self.unit) * (size[1] // self.unit)

    def count_reference(self, size: Size) -> int:
        """Return the tokens of a reference after the class's own scaling."""
        area = self.area or min(size[0] * size[1], self.max_area)
        share = math.sqrt(area / (size[0] * size[1]))
        return self.count((round(size[0] * share), round(size[1] * share)))


class ReferencePlan(NamedTuple):
    """Size of the references and the sequence length that follows from it."""

    size: int  # longest side in pixels to which a reference is scaled down
    tokens: int  # of text, image and references together


def scaled_size(size: Size, longest: int) -> Size:
    """Return the size of an image scaled down, never up, to a longest side in pixels."""
    share = min(1.0, longest / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def sequence_length(rule: TokenRule, image: Size, references: Sequence[Size], longest: int) -> int:
    """Return the length of the sequence in tokens with the references scaled down to `longest`."""
    tokens = sum(rule.count_reference(scaled_size(size, longest)) for size in references)
    return rule.text + rule.count(image) + tokens


def plan_references(
    rule: TokenRule, image: Size, references: Sequence[Size], *, longest: int, limit: int | None = None
) -> ReferencePlan:
    """Return the largest size of the references whose sequence is within the limit.

    Args:
        rule: of the pipeline class.
        image: size of the new image.
        references: sizes of the references as sent, that is after cropping.
        longest: declared longest side of a reference in pixels.
        limit: maximum sequence length in tokens; None is no limit.

    Raises:
        BadInput: even the smallest references, or the image alone, exceed the limit.
    """
    sizes = [longest, *(round(longest * share) for share in SHARES[1:] if references)]
    usable = [size for size in sizes if size == longest or size >= MIN_TOKENS * rule.unit]
    plans = [ReferencePlan(size, sequence_length(rule, image, references, size)) for size in usable]
    fitting = [plan for plan in plans if limit is None or plan.tokens <= limit]
    if not fitting:
        count, smallest = len(references), plans[-1]
        sent = f" with {count} references of {smallest.size} pixels" if count else ""
        raise BadInput(
            f"An image of {image[0]} × {image[1]} pixels{sent} is a sequence of {smallest.tokens} tokens, "
            f"over the limit of {limit} (generator.max_sequence).",
            f"Use {'fewer references or ' * bool(count)}a smaller image.",
        )
    return fitting[0]
