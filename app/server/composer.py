"""Fields of the chat page's composer: what is typed, and the options of a message that it means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from starlette.datastructures import FormData

from pleinair.app.chat.thread import GRAPH, MessageOptions, Thread, TrayImage
from pleinair.app.engines import declared_capabilities
from pleinair.app.estimate.estimate import Estimate
from pleinair.app.pocket import is_pocket
from pleinair.app.server.forms import FieldFault, of_field
from pleinair.app.settings import Settings, license_setting, load, profiles, require_profile
from pleinair.tools import registry
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.types import BadInput, Capabilities

EXAMPLES = (
    "a red fox asleep in fresh snow",
    "a street market at night in the rain, seen from above",
    "a wooden sailing boat on a calm lake at dawn",
)
POCKET_EXAMPLES = (
    "a hoopoe in the snow",
    "two puffins on a beach at sunset",
    "a red car in front of a samoyed",
)
APPROVALS = (("", "no"), ("references", "images with references"), ("draft", "every image"))


@dataclass(frozen=True)
class Number:
    """Field with a number; an empty one leaves the value to the thread and the settings."""

    name: str
    label: str
    key: str = ""  # dotted setting
    kind: type[int] | type[float] = int

    def read(self, text: str) -> float:
        """Return the number; raises `FieldFault`."""
        try:
            value = self.kind(text)
            is_usable = math.isfinite(value)
        except (ValueError, OverflowError):  # such as of a whole number of 400 digits
            is_usable = False
        if not is_usable:
            kind = "a whole number" if self.kind is int else "a number"
            raise FieldFault(self.name, f"{self.label} {text[:40]!r}: must be {kind}")
        return value


IMAGE = (
    Number("width", "Width", "image.width"),
    Number("height", "Height", "image.height"),
    Number("num_images", "Number of images"),
    Number("seed", "Seed"),
)
STRENGTH = Number("strength", "Strength of references", "image.reference_strength", float)
LIMITS = (
    Number("attempts", "Attempts", "budget.attempts"),
    Number("images", "Images", "budget.images"),
    Number("mllm_calls", "MLLM calls", "budget.mllm_calls"),
    Number("tokens", "Tokens", "budget.tokens"),
    Number("seconds", "Seconds", "budget.seconds", float),
    Number("usd", "US dollars", "budget.usd", float),
)
NUMBERS = (*IMAGE, STRENGTH, *LIMITS)
LICENSES = (
    ("", "as set"),
    ("any", "any"),
    ("known", "known ones"),
    ("free", "free to use and change"),
)
TEXTS = {
    "profile": "",
    "graph": "graph",
    "approve": "approve",
    "license": "",
    "negative_prompt": "image.negative_prompt",
}
FIELDS = ("prompt", *TEXTS, *(number.name for number in NUMBERS))
ONCE = ("prompt", "seed")  # fields that are empty again after a message


def typed(form: FormData) -> dict[str, str]:
    """Return what is typed in the fields of a form."""
    values = {name: form.get(f"f-{name}", "") for name in FIELDS}
    return {name: value.strip() for name, value in values.items() if isinstance(value, str) and value.strip()}


def concept_field(handle: str) -> str:
    """Return the name of the field of what an image of the tray shows."""
    return f"concept-{handle[1:]}"


def typed_tray(form: FormData, tray: Sequence[TrayImage]) -> Iterator[TrayImage]:
    """Yield the images of a tray with what is typed and chosen for them, which is not checked yet."""
    sent = set(map(str, form.getlist("tray")))
    for image in tray:
        if image.handle in sent:  # else it was added on another page
            concept, used = str(form.get(concept_field(image.handle), "")), f"use-{image.handle[1:]}" in form
            image = image.model_copy(update={"concept": concept, "used": used})
        yield image


def read_options(values: Mapping[str, str]) -> MessageOptions:
    """Return the options that typed values mean; raises `FieldFault`."""
    numbers = {field: field.read(values[field.name]) for field in NUMBERS if values.get(field.name)}
    overrides: dict[str, Any] = {field.key: value for field, value in numbers.items() if field.key}
    for name in ("approve", "negative_prompt"):
        if values.get(name):
            overrides[TEXTS[name]] = values[name]
    if license := values.get("license"):
        with of_field("license"):
            overrides |= license_setting(cast(Licenses, license))
    if profile := values.get("profile"):
        with of_field("profile"):
            require_profile(profile)
    others: dict[str, Any] = {field.name: int(value) for field, value in numbers.items() if not field.key}
    return MessageOptions(
        graph=values.get("graph") or GRAPH, profile=values.get("profile"), overrides=overrides, **others
    )


def located(error: BadInput, options: MessageOptions, thread: Thread) -> BadInput:
    """Return an error with the field that causes it, if one does alone."""
    profile = options.profile or thread.profile
    for field in NUMBERS:
        if field.key in options.overrides:
            try:
                typed = {field.key: options.overrides[field.key]}
                load(profile, thread.overrides | typed, origin=f"field {field.label}")
            except BadInput as cause:
                return FieldFault(field.name, cause.message, cause.remedy)
    return error


@dataclass(frozen=True)
class Composer:
    """Composer of a page: choices, and what an empty field means."""

    settings: Settings | None  # None: what is typed, or the configuration, is not usable
    capabilities: Capabilities | None
    fields: Mapping[str, str]  # what is typed, by field

    @classmethod
    def of(cls, thread: Thread, values: Mapping[str, str]) -> Composer:
        """Build the composer of a thread, with what is typed in it."""
        fields = dict.fromkeys(FIELDS, "") | {name: values[name] for name in values if name in FIELDS}
        try:
            settings = load(fields["profile"] or thread.profile, thread.overrides)
            return cls(settings, declared_capabilities(settings), fields)
        except BadInput:
            return cls(None, None, fields)

    @property
    def profiles(self) -> list[tuple[str, str]]:
        """Values and names of the profiles, the thread's first."""
        names = [name for name in dict.fromkeys([self.fields["profile"], *profiles()]) if name]
        is_default = self.settings and not self.fields["profile"]
        default = f"{self.settings.profile} (default)" if self.settings and is_default else "default"
        return [("", default), *((name, name) for name in names)]

    @property
    def graphs(self) -> list[tuple[str, str]]:
        """Values and names of the graphs, that of chats first."""
        return [("", f"{GRAPH} (chat)"), *((name, name) for name in registry.names("graph") if name != GRAPH)]

    @property
    def image(self) -> list[tuple[Number, str]]:
        """The fields of the image, each with what an empty one means."""
        return [(field, self._default(field)) for field in IMAGE]

    @property
    def strength(self) -> list[tuple[Number, str]]:
        """The field of the references' strength, if the generator has one."""
        accepts = self.capabilities.accepts if self.capabilities else ()
        return [(STRENGTH, self._default(STRENGTH))] if "reference_strength" in accepts else []

    @property
    def limits(self) -> list[tuple[Number, str]]:
        """The fields of the budget, each with what an empty one means."""
        return [(field, self._default(field) or "no limit") for field in LIMITS]

    def _default(self, field: Number) -> str:
        table, _, name = field.key.partition(".")
        value = getattr(getattr(self.settings, table, None), name, None) if field.key else None
        if value is None and field in IMAGE:
            value = {"num_images": 1, "seed": "random"}.get(field.name) or getattr(
                self.capabilities, field.name, None
            )
        return "" if value is None else str(value)

    @property
    def summary(self) -> str:
        """The options in short."""
        profile = self.settings.profile if self.settings else self.fields["profile"]
        values = {field.name: self.fields[field.name] or self._default(field) for field in IMAGE}
        size = f"{values['width']} × {values['height']}" if values["width"] and values["height"] else ""
        images = self.fields["num_images"] and f"{self.fields['num_images']} images"
        approve = self.fields["approve"] and "asks first"
        return " · ".join(filter(None, (profile, self.fields["graph"] or GRAPH, size, images, approve)))

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the library."""
        return self.settings.library.folders if self.settings else ()

    @property
    def is_pocket(self) -> bool:
        """Whether the models are the miniature ones."""
        return bool(self.settings and is_pocket(self.settings))

    @property
    def examples(self) -> tuple[str, ...]:
        """Prompts that the models can draw."""
        return POCKET_EXAMPLES if self.is_pocket else EXAMPLES


def estimate_rows(estimate: Estimate) -> list[tuple[str, str, str]]:
    """Return label, range and note of what a message takes."""
    ranges = {
        "Images": estimate.pictures,
        "MLLM calls": estimate.calls,
        "Seconds": estimate.seconds,
        "US dollars": estimate.usd,
    }
    return [(label, part.text, part.note) for label, part in ranges.items()]
