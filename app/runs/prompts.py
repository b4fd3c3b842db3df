"""A request from a prompt as a person typed it: its options are taken out, notes are added.

The command line, Python and chats build their requests here; forks and replays have a prompt that was read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from pleinair.agent.state import MAX_PROMPT
from pleinair.app.engines import declared_capabilities
from pleinair.app.pocket import is_pocket, language_of
from pleinair.app.runs.notes import note_on, notes_on
from pleinair.app.runs.prices import is_paid
from pleinair.app.runs.request import DrawRequest, new_request
from pleinair.app.settings import Settings
from pleinair.tools.arguments import explain
from pleinair.tools.pocket.language import OutsideWorld, Wording
from pleinair.tools.prompt_options import PromptOption, parse_prompt_options
from pleinair.tools.types import MAX_SIDE, BadInput, Capabilities, ImageOptions

MAX_RATIO = 8.0
CHATS = ("react",)  # graphs to which a line of a chat is sent, which may be a change
READ_BY_RULES = ("pleinair", "imagerag", "crossmodal")  # graphs whose first MLLM call reads the prompt


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
    parsed = parse_prompt_options(prompt) if is_text else None
    text, options = (parsed.prompt, PromptOptions(parsed.options)) if parsed else (prompt, PromptOptions(()))
    if options.all:
        capabilities = declared_capabilities(settings)
        if option := options.last("seed", is_set=seed is not None):
            seed = _whole(option.value, option)
        if option := options.last("num_images", is_set=num_images is not None):
            num_images = _whole(option.value, option)
            if num_images > 1 and not yes and is_paid(settings.generator):
                raise Unconfirmed(num_images, settings.generator.label)
        if image := _image_options(options, capabilities, explicit):
            settings = settings.model_copy(update={"image": _checked(settings.image, image)})
    is_complete = is_text and fields.get("graph") not in CHATS
    wording = _wording(text, settings) if is_complete else Wording(text)
    request = new_request(
        prompt=wording.prompt,
        settings=settings,
        seed=seed,
        num_images=1 if num_images is None else num_images,
        prompt_options=tuple(options.all),
        **fields,
    )
    _check_readable(request)
    notes = (*note_on(wording), *notes_on(request.prompt, request.settings))
    return request.model_copy(update={"notes": notes})


class PromptOptions:
    """The options of a prompt, `all`, each with what becomes of it."""

    def __init__(self, options: Iterable[PromptOption]) -> None:
        self.all = list(options)

    def of(self, name: str) -> list[PromptOption]:
        """Return the options of a name that may be used."""
        return [option for option in self.all if option.option == name and option.used]

    def mark(self, option: PromptOption, note: str, *, used: bool = False) -> None:
        """Store what became of an option."""
        changed = option.model_copy(update={"used": used, "note": note})
        self.all = [changed if other is option else other for other in self.all]

    def last(self, name: str, *, is_set: bool) -> PromptOption | None:
        """Return the option of a name that applies, none if the caller set it; mark all others as unused."""
        options = self.of(name)
        applies = options[-1] if options and not is_set else None
        why = "is set by an option" if is_set else "comes again"
        for option in options:
            if option is not applies:
                self.mark(option, f"not used, since {name} {why}")
        return applies


def _whole(value: str, option: PromptOption) -> int:
    try:
        return int(value)
    except ValueError as error:
        message = f"{option.text!r} in the prompt: must be a whole number"
        raise BadInput(message, field="prompt") from error


def _wording(prompt: str, settings: Settings) -> Wording:
    """Return a prompt in the pocket generator's words; others, and for other generators, stay as they are."""
    if not is_pocket(settings):
        return Wording(prompt)
    with suppress(OutsideWorld):
        return language_of(settings).wording(prompt)
    return Wording(prompt)


def _image_options(
    options: PromptOptions, capabilities: Capabilities, explicit: Collection[str]
) -> dict[str, Any]:
    """Return the image options of a prompt, and mark what became of each."""
    image: dict[str, Any] = {**read_size(options, capabilities, explicit)}
    for name in ("num_inference_steps", "guidance_scale"):
        option = options.last(name, is_set=name in explicit)
        if option and name not in capabilities.accepts:
            options.mark(option, f"`{capabilities.id}` has no {name}; left out")
        elif option:
            image[name] = float(option.value) if name == "guidance_scale" else _whole(option.value, option)
    negative = [option for option in options.of("negative_prompt") if option.value]
    if not negative:
        return image
    if "negative_prompt" in explicit:
        note = "not used, since negative_prompt is set by an option"
    elif not capabilities.negative_prompt:
        note = f"`{capabilities.id}` has no negative prompt; left out"
    else:
        return image | {"negative_prompt": ", ".join(option.value for option in negative)}
    for option in negative:
        options.mark(option, note)
    return image


def read_size(
    options: PromptOptions, capabilities: Capabilities, explicit: Collection[str] = ()
) -> dict[str, int]:
    """Return width and height of a prompt: its pixels, or else its ratio at the generator's area.

    Width and height in `explicit` come before it. Marks what became of the options; raises `BadInput` for an
    impossible size.
    """
    sized, is_set = options.of("size"), not {"width", "height"}.isdisjoint(explicit)
    ratio = options.last("ratio", is_set=bool(sized) or is_set)
    if is_set:
        for option in sized:
            options.mark(option, "not used, since the size is set by an option")
        return {}
    if ratio:
        width, height = size_of_ratio(ratio.value, capabilities, f"{ratio.text!r} in the prompt")
        options.mark(ratio, f"width {width}, height {height}", used=True)
        return {"width": width, "height": height}
    image: dict[str, int] = {}
    for option in sized:
        sides = zip(("width", "height"), option.value.split("x"), strict=True)
        image |= {name: _whole(side, option) for name, side in sides if side}
    if sized:
        _check_sides(image, capabilities, f"{sized[-1].text!r} in the prompt")
    return image


def size_of_ratio(ratio: str, capabilities: Capabilities, name: str) -> tuple[int, int]:
    """Return the legal width and height nearest to a ratio such as "16:9", at the generator's pixel count.

    Raises `BadInput`, which begins with `name`, for a ratio over 8 to 1.
    """
    across, down = map(float, ratio.split(":"))
    if not (across and down and 1 / MAX_RATIO <= across / down <= MAX_RATIO):
        message = f"{name}: a ratio must be 1:{MAX_RATIO:g} to {MAX_RATIO:g}:1"
        raise BadInput(message, field="prompt")
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
            f"{unit}; the nearest is {size}",
            field="prompt",
        )


def _checked(before: ImageOptions, image: dict[str, Any]) -> ImageOptions:
    try:
        return ImageOptions.model_validate(before.model_dump(exclude_none=True) | image)
    except ValidationError as error:
        detail = error.errors()[0]
        raise BadInput(
            f"{detail['loc'][0]} = {detail['input']!r} in the prompt: {explain(detail)}", field="prompt"
        ) from error


def _check_readable(request: DrawRequest) -> None:
    """Raise `BadInput` for a prompt outside the language of the pocket chat model, before an image."""
    if request.settings.mllm.backend != "pocket" or request.graph not in READ_BY_RULES:
        return
    try:
        language_of(request.settings).concepts(request.prompt)
    except OutsideWorld as error:
        raise BadInput(
            f"prompt {request.prompt!r}: {error}",
            f"{error.remedy} For anything else choose a real profile: --profile NAME.".strip(),
            field="prompt",
        ) from error
