"""What a line of a chat asks for; changes of the scene or the size are read by rules, never by a model.

Not covered: changes of one thing ("make the wren bigger", "a red hat on the cat"), which go to the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pleinair.tools.prompt_options import PromptOption, parse_prompt_options
from pleinair.tools.types import BadInput

GROWTH = 1.5  # of a side, for "bigger"

_LEAD = r"^(?:(?:now|please|and|then|also|but|ok|okay|can you|could you)[, ]+)*"
_TAIL = r"(?:,? (?:please|thanks|thank you|too|as well))*[.!]*$"
_ADD = re.compile(
    _LEAD + r"(?:(?:add|include|insert|put in)|(?:and|also|plus|with)(?=(?: [\w'-]+){2,5}$)) "
    r"(?P<what>(?:an?|the|some|another) .+?)"
    r"(?: (?:to|into) (?:it|the (?:picture|image|scene)))?" + _TAIL,
    re.IGNORECASE,
)
_REMOVE = re.compile(
    _LEAD + r"(?:remove|delete|drop|lose|take (?:away|out)|get rid of|leave out|no more"
    r"|without(?= (?:the|that|any) ))"
    r" (?:(?:an?|the|that|this|any) )?"
    r"(?P<what>.+?)(?: (?:from|out of) (?:it|the (?:picture|image|scene)))?" + _TAIL,
    re.IGNORECASE,
)
_OLD, _NEW = r"(?:(?:an?|the|that|this) )?(?P<old>.+?)", r"(?P<new>.+?)"
_REPLACE = tuple(
    re.compile(f"{_LEAD}{pattern}{_TAIL}", re.IGNORECASE)
    for pattern in (
        rf"(?:replace|swap|exchange) {_OLD} (?:with|by|for) {_NEW}",
        rf"(?:change|turn) {_OLD} (?:in)?to (?P<new>(?:an?|another) .+?)",
        rf"instead of {_OLD}(?:, ?| (?=an? ))(?:(?:use|draw|put) )?{_NEW}",
        rf"(?:(?:use|draw|put|make it) )?{_NEW} instead of {_OLD}",
    )
)
_SCALE = re.compile(
    _LEAD + r"(?:make (?:it|the (?:picture|image)) |(?:a )?)?(?:a (?:bit|little) |much )?"
    r"(?P<size>bigger|larger|smaller)" + _TAIL,
    re.IGNORECASE,
)
_FORM = re.compile(
    _LEAD + r"(?P<how>make (?:it|the (?:picture|image)|that)|in|as|use|(?:set|change) it to)?"
    r" ?(?:an? )?(?P<form>.+?)" + _TAIL,
    re.IGNORECASE,
)
_FORMATS = ("square", "portrait", "landscape")
_JOINT = (
    r"(?:,\s*(?:and\s+)?|\s+(?:and|with|beside|next to|(?:to the )?(?:left|right) of|above|over|near|behind"
    r"|under|below|in front of|on top of|holding|wearing|on|by|at|in)\s+)"
)
_ARTICLE = r"(?:(?:an?|the|one|some)\s+)?"


@dataclass(frozen=True)
class Edit:
    """Request that a line means."""

    prompt: str  # in full; "" if no new image is needed
    size: Mapping[str, int] = field(default_factory=dict)  # width, height: of this and the following images


@dataclass(frozen=True)
class Resize:
    """Change of the size: a factor of the last image's sides, or options as in a prompt."""

    factor: float = 1.0
    options: tuple[PromptOption, ...] = ()


def read_resize(line: str) -> Resize | None:
    """Return the change of size that a line is ("bigger", "make it 16:9"); None for any other line."""
    if match := _SCALE.match(line):
        return Resize(factor=1 / GROWTH if match["size"].lower() == "smaller" else GROWTH)
    if not (match := _FORM.match(line)):
        return None
    form = match["form"]
    if form.lower() in _FORMATS:
        form = f"{form} format" if match["how"] else ""  # a word alone may be a prompt
    elif re.fullmatch(r"\d{1,4}:\d{1,4}", form) and match["how"]:
        form = f"--ar {form}"
    parsed = parse_prompt_options(form)
    sizes = [option for option in parsed.options if option.option in ("size", "ratio")]
    return Resize(options=parsed.options) if sizes and not parsed.prompt.strip() else None


def read_scene_edit(line: str, prompt: str, concepts: Sequence[str]) -> str | None:
    """Return the last image's prompt with what a line adds, removes or replaces; None for any other line.

    `concepts` are those of the image, by name. Raises `BadInput` if what is to be removed is the only one, or
    what is to be removed or replaced may be several.
    """
    if match := _replacement(line):
        concept = _one_of("replace", match["old"], concepts)
        return _replaced(concept, match["new"], prompt) if concept else None
    if match := _ADD.match(line):
        return _with(match["what"], prompt, concepts)
    match = _REMOVE.match(line)
    concept = _one_of("remove", match["what"], concepts) if match else None
    return _without(concept, prompt, concepts) if concept else None


def is_scene_edit(line: str) -> bool:
    """Return whether a line may add to the scene, remove from it or replace something."""
    return bool(_replacement(line) or _ADD.match(line) or _REMOVE.match(line))


def _replacement(line: str) -> re.Match[str] | None:
    return next((match for pattern in _REPLACE if (match := pattern.match(line))), None)


def _one_of(verb: str, what: str, concepts: Sequence[str]) -> str | None:
    """Return the concept that some words mean, None for none; raise `BadInput` if it may be several."""
    matching = _matching(what, concepts)
    if len(matching) > 1:
        raise BadInput(f"{verb} {what!r}: may be {' or '.join(matching)}; name one")
    return matching[0] if matching else None


def _replaced(concept: str, new: str, prompt: str) -> str | None:
    """Return a prompt with another thing in place of a concept and its article; None if it has none."""
    match = re.search(rf"(?P<article>{_ARTICLE})\b{re.escape(concept)}\b", prompt, re.IGNORECASE)
    if match and match["article"] and not re.match(_ARTICLE[:-1], new, re.IGNORECASE):
        new = f"{'an' if new[0].lower() in 'aeiou' else 'a'} {new}"
    return f"{prompt[: match.start()]}{new}{prompt[match.end() :]}" if match else None


def _matching(what: str, concepts: Sequence[str]) -> list[str]:
    """Return the concepts that some words may mean: an equal one alone, or all that have the words."""
    what = what.lower()
    if equal := [name for name in concepts if name.lower() == what]:
        return equal[:1]
    return [name for name in concepts if set(what.split()) <= set(name.lower().split())]


def _with(what: str, prompt: str, concepts: Sequence[str]) -> str:
    """Return a prompt with something more, behind its last concept, so that a setting stays at the end."""
    found = [re.search(rf"\b{re.escape(name)}\b", prompt, re.IGNORECASE) for name in concepts]
    end = max((place.end() for place in found if place), default=0)
    if not end:
        return f"{prompt.rstrip(' .!,')} with {what}"
    return f"{prompt[:end]} and {what}{prompt[end:]}"


def _without(concept: str, prompt: str, concepts: Sequence[str]) -> str:
    """Return a prompt without a concept, its article and the word that joins it to the rest."""
    others = [name for name in concepts if name != concept]
    if not others:
        raise BadInput(
            f"remove {concept!r}: nothing else is in the image; describe what is to be seen instead"
        )
    phrase = rf"{_ARTICLE}\b{re.escape(concept)}\b"
    for pattern in (_JOINT + phrase, phrase + _JOINT):
        shorter, count = re.subn(pattern, "", prompt, count=1, flags=re.IGNORECASE)
        if count and all(name.lower() in shorter.lower() for name in others):
            return shorter.strip()
    return " and ".join(f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}" for name in others)
