"""Content of an answer: fitted to its schema where one reading is sensible, then checked strictly."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from pleinair.tools.mllm.reading import loaded, plain_key
from pleinair.tools.types import Concept, Value

Answer = TypeVar("Answer", bound=Value)

_TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_NUMBER = re.compile(
    r"\s*(?:(?:no\.?|number|picture|image|photo)[\s_]*)?#?\s*(\d{1,6})\s*\.?\s*", re.IGNORECASE
)
_SYNONYMS = {
    "name": ("concept", "object", "entity", "subject", "label"),
    "caption": ("captions", "description", "query", "text"),
    "match": ("matches", "is_match"),
    "subqueries": ("queries", "subquery"),
    "why": ("reason", "reasoning", "explanation"),
}
_PHRASE_KEYS = ("name", "concept", "subquery", "query", "phrase", "object", "text")
_NUMBER_KEYS = ("number", "picture", "image", "index")
_AS_PHRASES = "concepts"  # field whose items may be names alone; those of others need their captions
_ARTICLE = re.compile(r"(?:the|an?)\s+(?=\S)")
_NUMBERED = re.compile(r"(?:\d{1,3}[.):]|\(\d{1,3}\)|#\d{1,3})\s+(?=\S)")
_NOTHING = ("", "none", "nothing", "n/a", "null")


def fitted(value: Any, schema: type[Answer]) -> Answer:
    """Return the answer; a field that `schema` does not have is dropped, and null is the field's default.

    Numbers and truth values may be written as text, a phrase as an object of one phrase, a concept of a
    decomposition as its name, and a word of a choice in another case. Raises `ValueError` if the content does
    not fit then.
    """
    plain = _object(value, schema)
    return schema.model_validate_json(json.dumps(plain, allow_nan=False), strict=True)


def _object(value: Any, schema: type[BaseModel], *, as_phrases: bool = False) -> Any:
    if schema is Concept:
        value = _concept(value, as_phrases)
    if not isinstance(value, dict):
        return value
    plain = dict[str, Any]()
    for name, field in schema.model_fields.items():
        keys = field_keys(value, name, _SYNONYMS.get(name, ()))
        if len(keys) > 1:
            raise ValueError(f"{name}: is there as {', '.join(map(repr, keys))}, with different values")
        if keys and (value[keys[0]] is not None or field.is_required()):
            plain[name] = _item(value[keys[0]], field.annotation, as_phrases or name == _AS_PHRASES)
    return plain


def field_names(key: str, schema: type[BaseModel]) -> list[str]:
    """List the fields of a schema that a key may mean."""
    spellings = {name: map(plain_key, (name, *_SYNONYMS.get(name, ()))) for name in schema.model_fields}
    return [name for name, keys in spellings.items() if plain_key(key) in keys]


def field_keys(value: dict[str, Any], name: str, synonyms: Sequence[str] = ()) -> list[str]:
    """List an object's keys for a field, in the first spelling that occurs, one for each different value."""
    for spelling in (name, *synonyms):
        keys = {json.dumps(value[key]): key for key in value if plain_key(key) == plain_key(spelling)}
        if keys:
            return [name] if name in keys.values() and len(keys) == 1 else list(keys.values())
    return []


def _concept(value: Any, as_phrases: bool) -> Any:
    """Return an object of name and caption; a phrase alone is both, and a name is for a blank caption."""
    if isinstance(value, str) and as_phrases:
        return {"name": value, "caption": value}
    if isinstance(value, dict):
        captions = field_keys(value, "caption", _SYNONYMS["caption"])
        names = field_keys(value, "name", _SYNONYMS["name"])
        is_blank = all(value[key] is None or not str(value[key]).strip(" []") for key in captions)
        if len(names) == 1 and is_blank and (captions or as_phrases):
            return {"name": value[names[0]], "caption": value[names[0]]}
    return value


def _item(value: Any, annotation: Any, as_phrases: bool) -> Any:
    """Return a value as its annotation wants it, unchanged if there is no one reading."""
    if get_origin(annotation) is tuple:
        return _list(value, get_args(annotation)[0], as_phrases)
    if get_origin(annotation) is Literal and isinstance(value, str):
        return next((word for word in get_args(annotation) if word == value.strip().casefold()), value)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _object(value, annotation, as_phrases=as_phrases)
    if annotation is bool and isinstance(value, str):
        return _TRUTH.get(value.strip().casefold(), value)
    if annotation is int:
        return _integer(value)
    if annotation is str:
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        return value.strip() if isinstance(value, str) else value
    return _float(value) if annotation is float and isinstance(value, str) else value


def _list(value: Any, item: Any, as_phrases: bool) -> Any:
    value = loaded(value) or value if isinstance(value, str) else value
    if item is Concept and isinstance(value, dict):
        value = _pairs(value)
    if item is int and isinstance(value, str):
        value = value.split(",")
    if item is str and isinstance(value, str) and not re.search(r"[,;\n]", value):
        value = [value]
    if not isinstance(value, list):
        return value
    if item is str:
        phrases = [_item(_only(part, _PHRASE_KEYS, (str,)), str, as_phrases) for part in value]
        return [phrase for phrase in phrases if str(phrase).casefold() not in _NOTHING]
    return [_item(part, item, as_phrases) for part in value]


def _pairs(value: dict[str, Any]) -> Any:
    """Return concepts that are an object, each name with its caption or captions, as a list."""
    if plain_key("type") in map(plain_key, value):
        return value  # a JSON schema, repeated
    if all(isinstance(item, dict) for item in value.values()):
        return [{"name": name, **item} for name, item in value.items()]
    lists = {name: texts if isinstance(texts, list) else [texts] for name, texts in value.items()}
    if not all(isinstance(text, str) for texts in lists.values() for text in texts):
        return value
    return [{"name": name, "caption": text} for name, texts in lists.items() for text in texts]


def _only(part: Any, keys: Sequence[str], kinds: tuple[type, ...]) -> Any:
    """Return the one value of these types that an object has under one of `keys`."""
    if not isinstance(part, dict):
        return part
    values = [item for key, item in part.items() if plain_key(key) in keys and type(item) in kinds]
    return values[0] if len(values) == 1 else part


def _integer(value: Any) -> Any:
    value = _only(value, _NUMBER_KEYS, (int, float))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) if match else value


def _float(value: str) -> Any:
    return float(value) if re.fullmatch(r"\s*\d{0,9}\.?\d{1,17}\s*", value) else value


def match_names(names: Sequence[str]) -> dict[str, str]:
    """Map each spelling that `spellings` may return to the name it means, where that is one only."""
    means = dict[str, set[str]]()
    for name in names:
        for spelling in spellings(name):
            means.setdefault(spelling, set()).add(name)
    return {spelling: meant.pop() for spelling, meant in means.items() if len(meant) == 1} | {
        name: name for name in names
    }


def matched(name: Any, meanings: dict[str, str]) -> str | None:
    """Return the name that a spelling means, exactly or else without case, article and plural."""
    if not isinstance(name, str):
        return None
    return next((meanings[spelling] for spelling in (name, *spellings(name)) if spelling in meanings), None)


def spellings(name: str) -> list[str]:
    """Return a name without case, marks, number and article; then with the plurals of its last word."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = " ".join(re.sub(r"[_\-\s]+", " ", text).strip(" .,:;!?\"'`*“”‘’«»[]").split())
    text = _ARTICLE.sub("", _NUMBERED.sub("", text, count=1), count=1)
    plurals = [f"{text}s"]
    if text.endswith(("s", "x", "z", "ch", "sh", "o")):
        plurals.append(f"{text}es")
    if re.search(r"[^aeiou\W]y$", text):
        plurals.append(f"{text[:-1]}ies")
    return [f"={text}", *(f"~{form}" for form in (text, *plurals))]  # two stages, which do not mix
