"""Read a model's JSON without goodwill: what is not exactly one fitting object is not an answer.

Allowed, and noted in the log: a Markdown fence around the object, and characters that no text should hold,
which are taken out. Everything else is a `Misfit` that says what was wrong, so that the model can be asked
again: prose around the object, NaN, a key that comes twice, a wrong type, an unknown field, too much depth.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from typing import Any, TypeVar

from pydantic import ValidationError

from pleinair.tools.faults import Misfit
from pleinair.tools.types import Refused, Value

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Value)

FENCED = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?\s*```\Z", re.DOTALL | re.IGNORECASE)
# Controls but tab and line ends, halves of characters, and what nobody sees: marks that turn the direction of
# a text, spaces of no width, tags. The joiners U+200C and U+200D stay: some scripts are written with them.
UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
KEPT = 2000  # characters of a misfit that are shown to the model again
COMPLAINTS = 5


def parse(text: str, schema: type[Answer]) -> Answer:
    """Read the one JSON object that `text` is.

    Raises:
        Refused: the text is prose without any object; the text is the model's own.
        Misfit: it is no fitting `schema`, and why.
    """
    inner = unfenced(text.strip())
    if not inner.startswith("{"):
        if "{" not in inner:
            raise Refused(inner)
        raise misfit(schema, "there is text around the JSON object", text)
    try:
        return fit(json.loads(inner, object_pairs_hook=once, parse_constant=no_number), schema)
    except RecursionError:
        raise misfit(schema, "it is nested too deep", text) from None
    except ValueError as error:
        raise misfit(schema, complaint(error), text) from error


def unfenced(text: str) -> str:
    """Take a Markdown fence off that goes around the whole text."""
    found = FENCED.match(text)
    if found:
        log.warning("The model put its JSON into a Markdown fence.")
    return found[1].strip() if found else text


def fit(value: Any, schema: type[Answer]) -> Answer:
    """Check a JSON value against the schema, types as they stand: "1" is no number."""
    clean = tidy(value)
    if clean != value:
        log.warning("Control characters were taken out of the model's answer.")
    return schema.model_validate_json(json.dumps(clean, allow_nan=False), strict=True)


def tidy(value: Any) -> Any:
    """Take out of every text what no text should hold."""
    if isinstance(value, str):
        return UNFIT.sub("", value)
    if isinstance(value, dict):
        return {tidy(key): tidy(item) for key, item in value.items()}
    return [tidy(item) for item in value] if isinstance(value, list) else value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; a key that comes twice has two values, and neither is the answer."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key[:80]!r} comes twice")
    return found


def no_number(name: str) -> float:
    """Refuse NaN and the infinities, which JSON does not have."""
    raise ValueError(f"{name} is no JSON number")


def complaint(error: ValueError) -> str:
    """Say in one line what was wrong, in the words of the schema."""
    if not isinstance(error, ValidationError):
        return str(error)
    faults = error.errors(include_url=False, include_input=False)[:COMPLAINTS]
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in faults)


def misfit(schema: type[Value], reason: str, text: str) -> Misfit:
    """Make the fault of an answer that does not fit."""
    return Misfit(f"The model's answer is not a {schema.__name__}: {reason}", UNFIT.sub("", text)[:KEPT])
