"""HTML of a run, which the exported storyboard and the pages of the server share."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pleinair.agent.repairs.leaks import LeakOptions
from pleinair.app.credits.formats import web_address
from pleinair.app.credits.sheet import Chosen
from pleinair.app.storyboard import words
from pleinair.app.storyboard.strip import NOTE, cells_of
from pleinair.app.texts import short_caption
from pleinair.app.trace.attribution import Attribution
from pleinair.app.trace.trace import SIGNS, Trace, credits_of, score_text
from pleinair.tools.types import Box, Hit, Picture

TEMPLATES = Path(__file__).with_name("templates")
LONG = 16  # characters of a word that may have to break
COUNTS = {1: "one", 2: "two", 3: "three"}  # CSS classes by the number of attempts
_SIGN = re.compile(r"([_/.-])(?=\w)")


def environment(*folders: Path) -> Environment:
    """Return the environment of the templates, those of more folders first; all text is escaped."""
    loader = FileSystemLoader([*folders, TEMPLATES])
    created = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    created.filters["breakable"] = _breakable
    created.filters["short_caption"] = short_caption
    return created


def render_page(template: str, styles: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return a page of its own, by a template that extends `document.html`, with style sheets in it."""
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    own = {"style": Markup(style), "digest": Markup(f"sha256-{digest}")}
    return environment().get_template(template).render({**values, **own})


def _breakable(text: str) -> Markup:
    """Return a text whose long words, such as file names, may break behind a sign instead of anywhere."""
    words = (str(escape(word)) for word in text.split(" "))
    return Markup(" ".join(_SIGN.sub(r"\1<wbr>", word) if len(word) > LONG else word for word in words))


class Shown(Protocol):
    """Image of a page."""

    @property
    def uri(self) -> str:
        """Its address."""

    @property
    def small(self) -> bool:
        """Whether it is to be enlarged without smoothing."""


class Images(Protocol):
    """Images of a run and its library for a page; None for those that are missing."""

    pocket: bool  # whether the models are the pocket ones
    leak: LeakOptions

    @property
    def chosen(self) -> Chosen:
        """What the user has chosen as references."""

    def stored(self, picture: Picture, crop: Box | None = None) -> Shown | None:
        """Return an image of the run, or a crop of it."""

    def thumbnail(self, hit: Hit) -> Shown | None:
        """Return a thumbnail of a library image."""


def run_values(
    trace: Trace,
    gallery: Images,
    costs: Mapping[int, str] = MappingProxyType({}),
    attribution: Attribution | None = None,
) -> dict[str, Any]:
    """Return what the template `run.html` needs of a run; `costs` are those of attempts, in words.

    `attribution` is what its references contributed, if it is stored.
    """
    attempts = words.attempts_of(trace)
    return {
        "trace": trace,
        "attempts": attempts,
        "gallery": gallery,
        "count": COUNTS.get(len(attempts), "many"),
        "ending": trace.outcome.ending if trace.outcome else "open",
        "reason": trace.outcome.reason if trace.outcome else "not finished",
        "checked": any(attempt.rows for attempt in attempts),
        "signs": SIGNS,
        "words": words,
        "costs": costs,
        "credits": credits_of(trace, gallery.chosen),
        "web_address": web_address,
        "marked": any(words.box_marks(attempt) for attempt in attempts),
        "score_text": score_text,
        **strip_values(attribution, gallery),
    }


def strip_values(attribution: Attribution | None, gallery: Images) -> dict[str, Any]:
    """Return what the template `attribution.html` needs."""
    cells = cells_of(attribution) if attribution else []
    return {"attribution": attribution, "cells": cells, "note": NOTE, "gallery": gallery, "words": words}
