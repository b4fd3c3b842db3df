"""Rows of a critique: each for one concept that was asked about, or the reason why it cannot be read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pleinair.tools.mllm.boxes import BOX_KEYS, Frame
from pleinair.tools.mllm.content import field_keys, match_names, matched
from pleinair.tools.mllm.reading import loaded, plain_key
from pleinair.tools.types import Box, Row, Status

_CONCEPT_KEYS = ("concept_name", "name", "object", "label", "item", "element", "entity", "subject")
_STATUS_KEYS = (
    *("verdict", "state", "presence", "judgement", "judgment"),
    *("visible", "present", "is_visible", "is_present", "found", "detected", "shown"),
)
_CONFIDENCE_KEYS = ("confidence_score", "confidence_level", "probability", "certainty")
_WORDS: dict[Status, tuple[str, ...]] = {
    "present": (
        *("yes", "true", "visible", "shown", "seen", "found", "detected", "exists", "✓", "✔", "✅"),
        *("is present", "is visible", "fully present", "clearly present", "clearly visible"),
    ),
    "missing": (
        *("no", "false", "absent", "is missing", "is absent", "✗", "✘", "❌"),
        *(f"not {word}" for word in ("present", "visible", "shown", "seen", "found", "detected")),
    ),
    "unsure": (
        *("uncertain", "unclear", "unknown", "not sure", "perhaps", "maybe", "possibly", "partial"),
        *("ambiguous", "undetermined", "indeterminate", "cannot tell", "can't tell", "possibly present"),
        *(
            f"{part} {word}".strip()
            for part in ("partially", "partly")
            for word in ("", "present", "visible")
        ),
    ),
}
_STATUSES: dict[str, Status] = {
    word: status for status in get_args(Status) for word in (status, *_WORDS[status])
}
# A word for a confidence is no measurement. Its number stays on the side of doubt, and never under one half:
# with less, the model would have chosen another status.
_LEVELS = {
    **dict.fromkeys(("very high", "certain", "high"), 0.9),
    **dict.fromkeys(("medium", "moderate"), 0.7),
    **dict.fromkeys(("low", "very low"), 0.5),
}
_LEAST_PERCENTAGE = 10  # from 1 to here a number may be out of 5, of 10 or of 100
_NUMBER = re.compile(r"(\d{1,3}(?:[.,]\d{1,17})?)\s*(%|percent|(?:/|out of)\s*(5|10|100)|)")


def read_rows(
    answer: Mapping[str, Any], names: Sequence[str], frame: Frame
) -> tuple[dict[str, Row], dict[str, str]]:
    """Return the rows by the concept asked about, and for the concepts whose row cannot be read the reason.

    Rows of other concepts are dropped. Two rows of one concept that differ in status are no verdict; of two
    that agree, the one of less confidence counts. Raise `ValueError` if there are no rows.
    """
    items, meanings = _items(answer), match_names(names)
    boxes = frame.read([_box_of(item) for item in items])
    rows, faults = dict[str, Row](), dict[str, str]()
    for item, box in zip(items, boxes, strict=True):
        name = matched(_value(item, "concept", _CONCEPT_KEYS), meanings)
        if name is None:
            continue
        try:
            row = _row(item, name, box)
        except ValueError as error:
            faults[name] = str(error)
            continue
        other = rows.get(name, row)
        if other.status != row.status:
            faults[name] = f"the answer has it as {other.status} and as {row.status}"
        rows[name] = min(other, row, key=lambda either: either.confidence)
    return {name: row for name, row in rows.items() if name not in faults}, faults


def _items(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the rows; an object may have them by their concepts."""
    rows = next((value for key, value in answer.items() if plain_key(key) == "rows"), None)
    rows = loaded(rows) or rows if isinstance(rows, str) else rows
    if isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values()):
        keys = ("concept", *_CONCEPT_KEYS)
        rows = [row if field_keys(row, "", keys) else row | {"concept": name} for name, row in rows.items()]
    if not isinstance(rows, list):
        raise ValueError(f"rows: must be a list of objects, got {type(rows).__name__}")
    rows = [loaded(row) if isinstance(row, str) else row for row in rows]
    return [row for row in rows if isinstance(row, dict)]


def _value(item: dict[str, Any], name: str, synonyms: Sequence[str] = ()) -> Any:
    """Return the value of a field, None if it is not there; raise `ValueError` if it is there twice."""
    keys = field_keys(item, name, synonyms)
    if len(keys) > 1:
        raise ValueError(f"{name} is there twice, with different values")
    return item[keys[0]] if keys else None


def _box_of(item: dict[str, Any]) -> tuple[str, Any]:
    keys = [key for key in item if plain_key(key) in map(plain_key, BOX_KEYS) and item[key] is not None]
    return (keys[0], item[keys[0]]) if len(keys) == 1 else ("", None)


def _row(item: dict[str, Any], name: str, box: Box | None) -> Row:
    return Row(
        concept=name,
        status=_status_of(item),
        confidence=_confidence(_value(item, "confidence", _CONFIDENCE_KEYS)),
        evidence=_sentence(_value(item, "evidence", ("reason", "explanation"))),
        box=box,
        advice=_sentence(_value(item, "advice")),
    )


def _status_of(item: dict[str, Any]) -> Status:
    """Return the status, unless another field says the contrary."""
    value = _value(item, "status", _STATUS_KEYS)
    status = _status(value)
    if status is None:
        raise ValueError(f"status is {value!r:.80}, not one of {', '.join(get_args(Status))}")
    for key in _STATUS_KEYS:
        if {status, _status(_value(item, key))} == {"present", "missing"}:
            raise ValueError(f"status is {value!r:.80}, but {key} is {_value(item, key)!r:.80}")
    return status


def _status(value: Any) -> Status | None:
    if isinstance(value, bool):
        return "present" if value else "missing"
    word = re.sub(r"[\s_-]+", " ", value).strip(" .!*`\"'").casefold() if isinstance(value, str) else ""
    return _STATUSES.get(word)


def _confidence(value: Any) -> float:
    """Return a confidence from 0 to 1; raise `ValueError` where a number has more than one reading."""
    number = value
    if isinstance(value, str):
        word = value.strip().casefold()
        if word in _LEVELS:
            return _LEVELS[word]
        if not (match := _NUMBER.fullmatch(word)):
            return _share(None, value)
        number = float(match[1].replace(",", "."))
        if match[2]:
            return _share(number / int(match[3] or 100), value)
    if isinstance(number, int | float) and not isinstance(number, bool) and _LEAST_PERCENTAGE < number <= 100:
        number /= 100
    return _share(number, value)


def _share(number: Any, value: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise ValueError(f"confidence is {value!r:.80}, not a number from 0 to 1")
    return float(number)


def _sentence(value: Any) -> str:
    """Return a text that nothing depends on; sentences of a list are joined."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "; ".join(value)
    return value if isinstance(value, str) else "" if value is None else str(value)
