"""Arguments of the driving model's tools: one schema a tool, whose docstring is the tool's description.

Wrapping is tolerated as in other answers: a number as text, one item without its list, a field that no tool
has. Nothing is clamped, and a misspelt field is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import Field, SkipValidation, ValidationError

from pleinair.tools.mllm.ask import UNPRINTABLE
from pleinair.tools.mllm.content import field_names, fitted
from pleinair.tools.registry import did_you_mean
from pleinair.tools.types import BadInput, Concept, Hit, Repair, Row, Value

_MAX_ITEMS = 16  # of a list
_MAX_TEXT = 2000  # characters of one text
_MAX_JSON = 20_000  # characters of all arguments
_MAX_ERRORS = 3  # reported at once
_MAX_NAMES = 80  # characters of unknown arguments in a message

Schema = TypeVar("Schema", bound=Value)


class Choice(Value):
    """Choose a picture of the library to show a concept."""

    concept: str
    id: str


class Decompose(Value):
    """Set what the user wants to see and what must be visible. Without concepts a fresh call lists them."""

    wish: str = Field(min_length=1, description="All that is to be seen, in full, fit for a generator.")
    concepts: tuple[Concept, ...] = Field(default=(), max_length=_MAX_ITEMS)


class Critique(Value):
    """Judge a picture that you were shown, once. Without rows a fresh call judges the newest one."""

    picture: int = Field(ge=0, le=10**6)
    # read by `read_rows`, which knows the concepts
    rows: tuple[SkipValidation[Row], ...] = Field(default=(), max_length=_MAX_ITEMS)


class Retrieve(Value):
    """Retrieve pictures of a concept from the user's library, by its caption or by another query."""

    concept: str = Field(min_length=1)
    query: str = ""


class Generate(Value):
    """Draw one picture, which you will be shown.

    A repair that adds or swaps a reference takes the best untried picture found for its concept, unless
    `references` names another one. So does `inpaint`, which paints only the box of the one concept that the
    best picture lacks, where the generator can.
    """

    prompt: str = Field(default="", description="Other words than the wish's; seldom needed.")
    repairs: tuple[Repair, ...] = Field(default=(), max_length=_MAX_ITEMS)
    references: tuple[Choice, ...] = Field(default=(), max_length=_MAX_ITEMS)


class Veto(Value):
    """Never use these pictures of the library again."""

    ids: tuple[str, ...] = Field(min_length=1, max_length=_MAX_ITEMS)


class PinHit(Choice):
    """Show a concept by this picture from now on."""


class Finish(Value):
    """End here: because more will not help, or because you will not do it (`refused`)."""

    reason: str = Field(min_length=1)
    refused: bool = False


class RunGraph(Value):
    """Let another graph draw the wish, within what is left of the budget."""


class Pin(Value):
    """Binding of a concept to a hit, until the user says otherwise."""

    concept: str
    hit: Hit


def parse_arguments(schema: type[Schema], arguments: dict[str, Any]) -> Schema:
    """Return the arguments of a call as its schema; raise `BadInput` with the fields at fault."""
    text = json.dumps(arguments)
    if len(text) > _MAX_JSON:
        raise BadInput(f"The arguments have {len(text):,} characters; wanted at most {_MAX_JSON:,}.")
    for value in _texts(arguments):
        _check_text(value)
    if arguments and not schema.model_fields:
        raise BadInput(f"Wrong arguments: this tool takes none, got {', '.join(arguments)[:_MAX_NAMES]}.")
    for key in arguments:
        if not field_names(key, schema) and (hint := did_you_mean(key, schema.model_fields)):
            raise BadInput(f"Wrong arguments: there is no {key!r}.{hint}")
    try:
        return fitted(arguments, schema)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)[:_MAX_ERRORS]
        lines = (f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}" for fault in errors)
        raise BadInput(f"Wrong arguments: {'; '.join(lines)}.") from error
    except ValueError as error:
        raise BadInput(f"Wrong arguments: {error}.") from error


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value; keys are left to the schema."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _check_text(text: str) -> None:
    """Raise `BadInput` for a text that is too long or holds control, invisible or surrogate characters."""
    if len(text) > _MAX_TEXT:
        raise BadInput(f"A text has {len(text):,} characters; wanted at most {_MAX_TEXT:,}.")
    unfit = next((char for char in text if char == "\r" or UNPRINTABLE.match(char)), None)
    if unfit:
        raise BadInput(f"A text holds the character {unfit!a}.")
