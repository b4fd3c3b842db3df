"""Operations of a change on a request: add, remove, keep, replace, swap and adjust.

Each takes the words of one clause, in lower case, and the request before. A name means a subject that the
request has, unless it is indefinite: "the dog", "a dog". What is not stated stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from pleinair.tools.pocket.catalogue.language.arrangement import find, kind_of
from pleinair.tools.pocket.catalogue.language.changes.adjustments import (
    OF_ALL,
    Words,
    adjust,
    adjust_some,
    arranged,
    has_number,
    joined,
    phrases_of,
    with_fields,
    with_instead,
    with_mention,
)
from pleinair.tools.pocket.catalogue.language.changes.references import (
    INDEFINITE,
    found,
    names_of,
    target,
    with_names,
)
from pleinair.tools.pocket.catalogue.language.changes.rewording import counted
from pleinair.tools.pocket.catalogue.language.descriptions import has_colour
from pleinair.tools.pocket.catalogue.language.lexicon import CHANGES, MARKS, begins, scan
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.language.reading import complete
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood
from pleinair.tools.pocket.catalogue.language.settings import settle
from pleinair.tools.pocket.catalogue.species import BY_NAME

Operation = Literal["add", "remove", "keep", "replace", "swap", "adjust"]
_OPERATIONS: tuple[Operation, ...] = ("add", "remove", "keep", "replace", "swap", "adjust")
_COLOURS = frozenset(("colours", "colors", "colour", "color"))
_INTO = ("with", "by", "for", "to", "into")


def operation_of(words: Words) -> tuple[Operation, int] | None:
    """Return the operation that words begin with, and the number of words that name it."""
    lengths = {operation: begins(words, CHANGES[operation]) for operation in _OPERATIONS}
    operation = max(_OPERATIONS, key=lambda name: lengths[name])
    return (operation, lengths[operation]) if lengths[operation] else None


def apply(words: Words, request: Request) -> Request:
    """Return a request as the words of one clause change it.

    Raises:
        NotUnderstood: the words are no change, or ask for what the world cannot draw. How many subjects there
            are, and of how many there are several, is not checked.
    """
    words = with_names(counted(words, request), request)
    if "instead" in words:
        return _with_own_colours(_instead(words, request))
    operation, length = operation_of(words) or ("adjust", 0)
    if operation == "add" and words[length - 1] in INDEFINITE:  # "put a rose": without the article a colour
        length -= 1
    rest = words[length:] if operation in ("add", "remove", "keep") else words
    return _with_own_colours(_FUNCTIONS[operation](rest, request))


def _with_own_colours(request: Request) -> Request:
    """Leave out colours that species have anyway; raise NotUnderstood for others: "the flower blue"."""
    for mention in request.mentions:
        if mention.name in BY_NAME and mention.colour and not has_colour(mention.name, mention.colour):
            raise NotUnderstood("colour", mention.colour, (mention.name, kind_of(mention)))
    mentions = (replace(m, colour="") if m.name in BY_NAME else m for m in request.mentions)
    return replace(request, mentions=tuple(mentions))


def _add(words: Words, request: Request) -> Request:
    """Add subjects, or falling snow and other weather."""
    _, parts, phrases = phrases_of(words, request)
    fields = dict(phrases.fields)
    new = [
        part.mention
        for part in parts
        if part.mention and (part.article != "the" or find(part.mention, request.mentions) is None)
    ]
    if not new and fields.get("background") == "snow":
        fields = {"weather": "snowfall"}
    if new and "background" in fields:  # "add a bird in the sky" does not leave the lake
        before = {"background": request.background}
        place = settle("background", fields["background"], before)  # may let snow fall there
        fields = before | fields | {"background": place}
    if len(new) == 1 and len(parts) <= 2:
        number = find(new[0], request.mentions)
        if number is not None and replace(new[0], count=1) == replace(request.mentions[number], count=1):
            return with_fields(_count(request, number, request.mentions[number].count + new[0].count), fields)
    if not new and not fields:
        raise NotUnderstood("change", joined(words), names_of(request))
    return with_fields(arranged(parts, request.mentions, request, words), fields)


def _count(request: Request, number: int, count: int) -> Request:
    mention = request.mentions[number]
    if count > 3:
        raise NotUnderstood("too many of one", f"{count} × {mention.name}", (mention.name,))
    return with_mention(request, number, replace(mention, count=count))


def _remove(words: Words, request: Request) -> Request:
    """Remove subjects, some of several ("one of the dogs"), or the place, the light or the weather."""
    _, parts, phrases = phrases_of(words, request)
    for name, value in phrases.fields.items():
        request = _clear(request, name, value, words)
    for part in parts:
        if part.mention:
            number = found(part, request)
            if number is None:
                raise NotUnderstood("change", part.mention.name, names_of(request))
            is_counted = part.article in INDEFINITE or has_number(words)
            left = request.mentions[number].count - part.mention.count if is_counted else 0
            request = _count(request, number, left) if left > 0 else _without(request, number)
    if not phrases.fields and not any(part.mention for part in parts):
        raise NotUnderstood("change", joined(words), names_of(request))
    return request


def _clear(request: Request, name: str, value: str, words: Words) -> Request:
    if value == "snow" and request.weather == "snowfall":
        name, value = "weather", "snowfall"
    if name != "weather" and value not in (getattr(request, name), "day"):
        raise NotUnderstood("change", joined(words), names_of(request))
    return with_fields(request, {name: ""})


def _without(request: Request, number: int) -> Request:
    """Remove a subject; the others are beside each other, unless it was the third."""
    mentions = (*request.mentions[:number], *request.mentions[number + 1 :])
    if not mentions:
        name = request.mentions[number].name
        reason = f"an image needs a subject, and the {name} is the only one; name another one instead of it"
        raise NotUnderstood("no subject", name, names_of(request), reason)
    relations = request.relations[:1] if number == 2 else ()
    return complete(replace(request, mentions=mentions, relations=relations))


def _keep(words: Words, request: Request) -> Request:
    """Remove all subjects but those that are named."""
    named = [part for part in phrases_of(words, request)[1] if part.mention]
    numbers = {found(part, request) for part in named}
    if not numbers or None in numbers:
        raise NotUnderstood("change", joined(words), names_of(request))
    if has_number(words):
        for part in named:
            number = found(part, request)
            if part.mention and number is not None and part.mention.count < request.mentions[number].count:
                request = _count(request, number, part.mention.count)
    for number in sorted(set(range(len(request.mentions))) - numbers, reverse=True):
        request = _without(request, number)
    return request


def _replace(words: Words, request: Request) -> Request:
    """Replace a subject or a place by another: "replace the pug with a husky"; else adjust or swap."""
    at = next((at for at in range(len(words) - 1, 0, -1) if words[at] in _INTO), 0)
    length = begins(words, CHANGES["replace"])
    old, new = words[length:at], words[at + 1 :]
    if not at or not old:
        swaps = words[0] in ("swap", "switch", "exchange")
        return _swap(words, request) if swaps else adjust(words, request)
    return _put(old, new, request, words)


def _put(old: Words, new: Words, request: Request, words: Words) -> Request:
    """Replace what old words name by what new words name; of a colour or a size alone, change it."""
    if {item.role for item in scan(joined(new))[0]} <= {"colour", "size", "article", "harmless"}:
        return adjust([*old[: old.index("from") if "from" in old else None], *new], request)
    if (changed := adjust_some([*old, *new], request)) is not None:
        return changed
    _, parts, phrases = phrases_of(new, request)
    mention = next((part.mention for part in parts if part.mention), None)
    if mention is None and not phrases.fields:
        return adjust(words, request)
    if any(part.role in ("relation", "side") for part in parts):
        raise NotUnderstood("relations", joined(words), names_of(request))
    replaced = phrases_of(old, request)[2].fields
    fields = (
        {"weather": "snowfall"}
        if phrases.fields.get("background") == "snow" and "weather" in replaced
        else phrases.fields
    )
    changed = with_fields(request, fields)
    if mention is None:
        return changed
    if len(request.mentions) > 1 and not {*OF_ALL}.isdisjoint(old):
        return replace(changed, mentions=(mention,), relations=())
    return with_instead(mention, _target(old, mention, request, words), changed, new)


def _target(old: Words, mention: Mention | None, request: Request, words: Words) -> int:
    """Return the subject that old words name; without a name, the one of the same kind, or the only one."""
    if old[-1:] == ["one"] and mention:  # "the red one", of which there are several
        old = [*old[:-1], mention.name]
    subjects = [part for part in phrases_of(old, request)[1] if part.mention]
    return target(subjects, mention, request, joined(words))


def _instead(words: Words, request: Request) -> Request:
    """Read "a husky instead of the pug", "instead of the pug, a husky" and "a husky instead"."""
    at = words.index("instead")
    before, after = words[:at], words[at + 1 :]
    if after[:1] != ["of"]:
        new = _after_operation([*before, *after])
        _, parts, phrases = phrases_of(new, request)
        named = [part.mention for part in parts if part.mention and part.article != "the"]
        stands = any(part.role in ("relation", "side") for part in parts)
        if not named or phrases.fields or stands:
            return adjust([*before, *after], request)
        return with_instead(named[0], _target([], named[0], request, words), request, new)
    old = after[1:]
    if not before:
        comma = next((at for at, word in enumerate(old) if word in (*MARKS, "a", "an") and at), len(old))
        old, before = old[:comma], [word for word in old[comma:] if word not in MARKS]
    if {item.role for item in scan(joined(old))[0]} <= {"colour", "size"}:  # "a teal car instead of pink"
        return adjust(["the", *(word for word in before if word not in ("a", "an", "the"))], request)
    return _put(old, _after_operation(before), request, words)


def _after_operation(words: Words) -> Words:
    operation = operation_of(words)
    return words[operation[1] :] if operation and operation[0] in ("add", "adjust") else words


def _swap(words: Words, request: Request) -> Request:
    """Exchange the places, or the colours, of the first two subjects."""
    of_colours = not _COLOURS.isdisjoint(words)
    said = [word for word in words[begins(words, CHANGES["swap"]) :] if word not in _COLOURS]
    named = [part.mention for part in phrases_of(said, request)[1] if part.mention]
    if len(request.mentions) < 2 or any(find(mention, request.mentions[:2]) is None for mention in named):
        raise NotUnderstood("change", joined(words), names_of(request))
    first, second, *rest = request.mentions
    if of_colours:
        exchanged = (replace(first, colour=second.colour), replace(second, colour=first.colour))
        return replace(request, mentions=(*exchanged, *rest))
    return replace(request, mentions=(second, first, *rest))


_FUNCTIONS: Mapping[Operation, Callable[[Words, Request], Request]] = {
    "add": _add,
    "remove": _remove,
    "keep": _keep,
    "replace": _replace,
    "swap": _swap,
    "adjust": adjust,
}
