"""Answers to questions about the catalogue world: what can be drawn, which names there are, who answers.

A question is recognised by how it begins; a request in the form of a question ("can you draw a hoopoe?") is
none. Not covered: questions about an image, about runs and settings, and about the world outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.language.lexicon import QUESTIONS, begins, scan, words_of
from pleinair.tools.pocket.catalogue.language.prompts import (
    LIGHT_WORDS,
    PLACE_WORDS,
    SIZE_WORDS,
    WEATHER_WORDS,
)
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood, with_article
from pleinair.tools.pocket.catalogue.scenes import RELATIONS
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS, SPECIES

_POLITE = ("please", "hi", "hello", "hey", "ok", "so", "and", "now", "thanks", "actually", "exactly", "else")


def answer(text: str) -> str | None:
    """Return a short answer to a question about the world or a courtesy, None for any other text."""
    marks = {mark for mark in words_of(text) if not mark[0].isalnum()}
    said = [word for word in words_of(text) if word not in marks]
    if " ".join(said) in QUESTIONS["courtesies"]:
        return 'Write what to draw, such as "a puffin on a beach", or what to change: "make it night".'
    words = [word for word in said if word not in _POLITE]
    phrase = " ".join(words)
    if phrase in QUESTIONS["abilities"]:
        return _abilities()
    if phrase in QUESTIONS["identity"]:
        return _identity()
    if phrase == "how many" or phrase.startswith("how many things"):
        return _numbers(list(KINDS))
    return _about_group(words) or _about_name(words)


def _abilities() -> str:
    kinds = ", ".join(kind.plural for kind in KINDS.values())
    return (
        f"I draw {kinds}: {len(SPECIES)} of them by name, or plain ones in a colour. An image has up to "
        "three things, of one or two things up to three each, small or big, beside, on or behind each other; "
        'and a place, a light and a weather. Try "two puffins on a beach at sunset". Then change it: "make '
        'it night", "add a dog on the left", "a hoopoe instead of the puffins".'
    )


def _identity() -> str:
    return (
        "I am a small program of rules that reads English about a miniature world; I am no language model. "
        "What I understand is drawn by small models that run on this computer."
    )


def _about_group(words: Sequence[str]) -> str | None:
    """Answer "which birds do you know?", "what colours are there?", "how many dogs can you draw?"."""
    length = begins(words, QUESTIONS["asks"])
    has_verb = not set(words[length:]).isdisjoint(QUESTIONS["verbs"])
    if not length or not (has_verb or len(words) == length + 1):
        return None
    items = scan(" ".join(words[length:]))[0]
    kinds = [item.word.value for item in items if item.role == "kind"]
    if any(item.role in ("name", "article", "setting") for item in items):
        return None
    if kinds and words[:2] == ["how", "many"]:
        return _numbers(kinds)
    if kinds:
        return "; ".join(f"{KINDS[kind].plural}: {_names_of(kind)}" for kind in dict.fromkeys(kinds))
    text = f" {' '.join(words)} "
    topics = (topic for topic in _TOPICS if any(f" {word} " in text for word in QUESTIONS[topic]))
    return next((_TOPICS[topic]() for topic in topics), None)


def _names_of(kind: str) -> str:
    return ", ".join(species.name for species in SPECIES if species.kind == kind)


def _numbers(kinds: Sequence[str]) -> str:
    counts = {kind: sum(species.kind == kind for species in SPECIES) for kind in kinds}
    listed = ", ".join(f"{count} {KINDS[kind].plural}" for kind, count in counts.items())
    return f"I know {listed} by name; in an image there are up to three things, of one thing up to three."


def _about_name(words: Sequence[str]) -> str | None:
    """Answer "do you know the hoopoe?" and "what is a hoopoe?"."""
    length = begins(words, QUESTIONS["one"])
    rest = [word for word in words[length:] if word not in ("is", "a", "an", "the")]
    if not length or not rest:
        return None
    items = scan(" ".join(rest))[0]
    if len(items) > 2 or any(item.role in ("setting", "relation") for item in items):
        return None
    item = items[-1]
    if len(items) == 1 and item.role == "name":
        return _describe(item.word.value)
    if len(items) == 1 and item.role == "kind":
        return f"{KINDS[item.word.value].plural} that I know: {_names_of(item.word.value)}"
    return _refusal(" ".join(rest))


def _refusal(text: str) -> str | None:
    try:
        read(text)
    except NotUnderstood as refusal:
        return f"{refusal}." if refusal.kind == "unknown name" else None
    return None


def _describe(name: str) -> str:
    species = BY_NAME[name]
    plural = KINDS[species.kind].plural
    text = f"{with_article(name).capitalize()} is one of the {plural} that I draw"
    if species.tier == "known":
        return f"{text}; its looks are learnt."
    return f"{text}; its looks are not learnt, so I look for a reference image of it."


def _places() -> str:
    return f"The places are {', '.join(PLACE_WORDS)}."


def _lights() -> str:
    return f"The light is {', '.join(LIGHT_WORDS)}; the weather is {', '.join(WEATHER_WORDS)}."


_TOPICS: Mapping[str, Callable[[], str]] = {
    "colours": lambda: f"Plain things can be {', '.join(NAMED)}; a thing with a name has its own colours.",
    "places": _places,
    "lights": _lights,
    "sizes": lambda: f"A thing can be {' or '.join(filter(None, SIZE_WORDS))}, or of the usual size.",
    "relations": lambda: f"Two things can stand to each other as follows: {', '.join(RELATIONS)}.",
    "kinds": lambda: _numbers(list(KINDS)),
}
