"""A request from a prompt as a person typed it: its options are taken out, notes are added.

The command line, Python and chats build their requests here; forks and replays have a prompt that was read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError

from pleinair.agent.state import MAX_PROMPT
from pleinair.app.engines import declared_capabilities, is_pocket
from pleinair.app.runs.notes import notes_on
from pleinair.app.runs.request import DrawRequest, is_paid, new_request
from pleinair.app.settings import Settings
from pleinair.tools.arguments import explain
from pleinair.tools.pocket.prompts import HINT, normalized, parse_prompt
from pleinair.tools.prompt_options import ParsedPrompt, PromptOption, parse_prompt_options
from pleinair.tools.types import BadInput, Capabilities, ImageOptions

MAX_SIDE = 8192  # pixels of a side that a prompt may ask for
MAX_RATIO = 8.0
READ_BY_GRAMMAR = ("pleinair", "imagerag", "crossmodal")  # graphs whose first MLLM call reads the prompt


class Unconfirmed(BadInput):
    """Several images of a generator that costs money, of which only the prompt speaks."""

    def __init__(self, number: int, generator: str) -> None:
        super().__init__(
            f"the prompt asks for {number} images, and {generator} costs money for each",
            f"Confirm it with --yes or --num-images {number} (in Python num_images={number}).",
        )
        self.num_images = number


def request_from(
    prompt: str,
    *,
    settings: Settings,
    seed: int | None = None,
    num_images: int | None = None,
    explicit: Collection[str] = (),
    yes: bool = False,
    **fields: Any,
) -> DrawRequest:
    """Build and validate a request; options in the prompt count where the caller set none.

    Args:
        prompt: as typed.
        settings: of the run.
        seed: None: that of the prompt, or a random one.
        num_images: None: the number in the prompt, or 1.
        explicit: names of the image options that the caller set himself, which come before the prompt's.
        yes: whether several images that cost money are confirmed.
        fields: the other arguments of `new_request`.

    Raises:
        Unconfirmed: the prompt asks for several images that cost money, without `yes`.
        BadInput: a value is unusable, also one in the prompt; nothing is written.
    """
    # new_request refuses what is no text or too long
    is_text = isinstance(prompt, str) and len(prompt) <= MAX_PROMPT
    parsed = (
        parse_prompt_options(prompt) if is_text else ParsedPrompt.model_construct(prompt=prompt, options=())
    )
    options = list(parsed.options)
    image: dict[str, Any] = {}
    if options:
        capabilities = declared_capabilities(settings)
        seed, options = _seed(seed, options)
        counted = num_images is None
        num_images, options = _num_images(num_images, options)
        if counted and num_images and num_images > 1 and not yes and is_paid(settings.generator):
            raise Unconfirmed(num_images, settings.generator.label)
        image, options = _image_options(options, capabilities, explicit)
        if image:
            settings = settings.model_copy(update={"image": _checked(settings.image, image)})
    text = normalized(parsed.prompt) if is_text and is_pocket(settings) else parsed.prompt
    request = new_request(
        prompt=text,
        settings=settings,
        seed=seed,
        num_images=1 if num_images is None else num_images,
        prompt_options=tuple(options),
        **fields,
    )
    _check_grammar(request)
    return request.model_copy(update={"notes": tuple(notes_on(request.prompt, request.settings))})


def _seed(seed: int | None, options: Sequence[PromptOption]) -> tuple[int | None, list[PromptOption]]:
    """Return the seed and the options; one that the caller gave comes before the prompt's."""
    value, options = _last(options, "seed", is_set=seed is not None)
    return (seed if value is None else _whole(value)), options


def _num_images(number: int | None, options: Sequence[PromptOption]) -> tuple[int | None, list[PromptOption]]:
    value, options = _last(options, "num_images", is_set=number is not None)
    return (number if value is None else _whole(value)), options


def _last(
    options: Sequence[PromptOption], name: str, *, is_set: bool
) -> tuple[PromptOption | None, list[PromptOption]]:
    """Return the option of a name that applies, and all options, of which the others are marked as unused."""
    usable = [option for option in options if option.option == name and option.used]
    applies = None if is_set or not usable else usable[-1]
    note = f"not used, since {name} is set by an option" if is_set else f"not used, since {name} comes again"
    marked = [
        option.model_copy(update={"used": False, "note": note})
        if any(option is other for other in usable) and option is not applies
        else option
        for option in options
    ]
    return applies, marked


def _whole(option: PromptOption) -> int:
    try:
        return int(option.value)
    except ValueError as error:
        raise BadInput(f"{option.text!r} in the prompt: must be a whole number") from error


def _image_options(
    options: list[PromptOption], capabilities: Capabilities, explicit: Collection[str]
) -> tuple[dict[str, Any], list[PromptOption]]:
    """Return the image options of a prompt, and its options with what became of each."""
    image, options = read_size(options, capabilities, explicit)
    for name in ("num_inference_steps", "guidance_scale"):
        is_set = name in explicit
        option, options = _last(options, name, is_set=is_set)
        if option and name not in capabilities.accepts:
            options = _marked(
                options, option, used=False, note=f"`{capabilities.id}` has no {name}; left out"
            )
        elif option:
            image[name] = float(option.value) if name == "guidance_scale" else _whole(option)
    negative = [option for option in options if option.option == "negative_prompt" and option.value]
    if not negative:
        return image, options
    if "negative_prompt" in explicit:
        note = "not used, since negative_prompt is set by an option"
    elif not capabilities.negative_prompt:
        note = f"`{capabilities.id}` has no negative prompt; left out"
    else:
        return image | {"negative_prompt": ", ".join(option.value for option in negative)}, options
    for option in negative:
        options = _marked(options, option, used=False, note=note)
    return image, options


def _marked(options: Sequence[PromptOption], changed: PromptOption, **update: Any) -> list[PromptOption]:
    return [option.model_copy(update=update) if option is changed else option for option in options]


def read_size(
    options: Sequence[PromptOption], capabilities: Capabilities, explicit: Collection[str] = ()
) -> tuple[dict[str, Any], list[PromptOption]]:
    """Return width and height of a prompt: its pixels, or else its ratio at the generator's area.

    Width and height in `explicit` come before it. Also returns the options, with what became of each. Raises
    `BadInput` for an impossible size.
    """
    options = list(options)
    sized = [option for option in options if option.option == "size"]
    ratio, options = _last(options, "ratio", is_set=bool(sized) or bool({"width", "height"} & set(explicit)))
    if {"width", "height"} & set(explicit):
        for option in sized:
            options = _marked(
                options, option, used=False, note="not used, since the size is set by an option"
            )
        return {}, options
    if ratio:
        width, height = size_of_ratio(ratio.value, capabilities, f"{ratio.text!r} in the prompt")
        options = _marked(options, ratio, note=f"width {width}, height {height}")
        return {"width": width, "height": height}, options
    image: dict[str, int] = {}
    for option in sized:
        sides = dict(zip(("width", "height"), option.value.split("x"), strict=True))
        image |= {
            name: _whole(option.model_copy(update={"value": side})) for name, side in sides.items() if side
        }
    if sized:
        _check_sides(image, capabilities, f"{sized[-1].text!r} in the prompt")
    return dict(image), options


def size_of_ratio(ratio: str, capabilities: Capabilities, name: str) -> tuple[int, int]:
    """Return the legal width and height nearest to a ratio such as "16:9", at the generator's pixel count.

    Raises `BadInput`, which begins with `name`, for a ratio over 8 to 1.
    """
    across, down = map(int, ratio.split(":"))
    if not (across and down and 1 / MAX_RATIO <= across / down <= MAX_RATIO):
        raise BadInput(f"{name}: a ratio must be 1:{MAX_RATIO:g} to {MAX_RATIO:g}:1")
    unit, area = capabilities.multiple_of, capabilities.width * capabilities.height
    height = max(round(math.sqrt(area * down / across) / unit), 1) * unit
    width = max(round(height * across / down / unit), 1) * unit
    return width, height


def _check_sides(image: dict[str, int], capabilities: Capabilities, name: str) -> None:
    """Raise `BadInput`, with the nearest legal size, for a size that the generator cannot have."""
    unit = capabilities.multiple_of
    nearest = {
        side: min(max(round(value / unit), 1), MAX_SIDE // unit) * unit for side, value in image.items()
    }
    if nearest != image:
        size = " × ".join(str(nearest.get(side, "")) for side in ("width", "height") if side in nearest)
        raise BadInput(
            f"{name}: `{capabilities.id}` generates sides of {unit} to {MAX_SIDE} pixels, in steps of "
            f"{unit}; the nearest is {size}"
        )


def _checked(before: ImageOptions, image: dict[str, Any]) -> ImageOptions:
    try:
        return ImageOptions.model_validate(before.model_dump(exclude_none=True) | image)
    except ValidationError as error:
        detail = error.errors()[0]
        raise BadInput(
            f"{detail['loc'][0]} = {detail['input']!r} in the prompt: {explain(detail)}"
        ) from error


def _check_grammar(request: DrawRequest) -> None:
    """Raise `BadInput` for a prompt outside the grammar of the pocket chat model, before an image."""
    if request.settings.mllm.backend != "pocket" or request.graph not in READ_BY_GRAMMAR:
        return
    try:
        parse_prompt(request.prompt)
    except ValueError as error:
        raise BadInput(
            f"prompt {request.prompt!r}: the pocket models cannot read it: {str(error).removesuffix(HINT)}",
            f"{HINT[2:].capitalize()}. For anything else choose a real profile: --profile NAME.",
        ) from error
