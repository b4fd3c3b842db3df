"""The arguments of the driving model's calls: one schema a tool, an unknown field is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationError

from pleinair.tools.mllm.ask import UNFIT
from pleinair.tools.types import BadInput, Concept, Hit, Repair, Row, Value

MOST = 16  # things in a list
MOST_TEXT = 2000  # characters of one text
MOST_JSON = 20_000  # characters of all arguments
FAULTS = 3  # told at once


class Choice(Value):
    """Choose a picture of the library to show a concept."""

    concept: str
    id: str


class Decompose(Value):
    """Say what the user wants to see and what must be visible. Without concepts a fresh call lists them."""

    wish: str = Field(min_length=1, description="All that is to be seen, in full, fit for a generator.")
    concepts: tuple[Concept, ...] = Field(default=(), max_length=MOST)


class Critique(Value):
    """Judge a picture that you were shown, once. Without rows a fresh call judges the newest one."""

    picture: int = Field(ge=0, le=10**6)
    rows: tuple[Row, ...] = Field(default=(), max_length=MOST)


class Retrieve(Value):
    """Look a concept up in the user's library, by its caption or by another query."""

    concept: str = Field(min_length=1)
    query: str = ""


class Generate(Value):
    """Draw one picture, which you will be shown.

    A repair that adds or swaps a reference takes the best untried picture found for its concept, unless
    `references` names another one. So does `inpaint`, which paints only the box of the one concept that the
    best picture lacks, where the generator can.
    """

    prompt: str = Field(default="", description="Other words than the wish's; seldom needed.")
    repairs: tuple[Repair, ...] = Field(default=(), max_length=MOST)
    references: tuple[Choice, ...] = Field(default=(), max_length=MOST)


class Veto(Value):
    """Never use these pictures of the library again."""

    ids: tuple[str, ...] = Field(min_length=1, max_length=MOST)


class Fix(Choice):
    """Show a concept by this picture from now on."""


class Pin(Value):
    """Bind a concept to the picture that is to show it, until the user says otherwise."""

    concept: str
    hit: Hit


class Finish(Value):
    """End here: because more will not help, or because you will not do it (`refused`)."""

    reason: str = Field(min_length=1)
    refused: bool = False


class Whole(Value):
    """Let another graph draw the wish, within what is left of the budget."""


def parsed(schema: type[Value], arguments: dict[str, Any]) -> Value:
    """Check a call's arguments strictly; nothing is converted, clamped or dropped.

    Raises `BadInput` with the fields at fault and what was wanted.
    """
    text = json.dumps(arguments)
    if len(text) > MOST_JSON:
        raise BadInput(f"The arguments have {len(text):,} characters; wanted at most {MOST_JSON:,}.")
    for one in _texts(arguments):
        _check_text(one)
    try:
        return schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)[:FAULTS]
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in faults)
        raise BadInput(f"Wrong arguments: {told}.") from error


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _check_text(text: str) -> None:
    """Refuse a text that is too long, or holds what no text should: controls, what nobody sees, halves."""
    if len(text) > MOST_TEXT:
        raise BadInput(f"A text has {len(text):,} characters; wanted at most {MOST_TEXT:,}.")
    strange = [char for char in text if char == "\r" or UNFIT.match(char)]
    if strange:
        raise BadInput(f"A text holds the character {strange[0]!a}.")
