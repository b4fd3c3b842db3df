"""Operations of a change on a request: add, remove, keep, replace, swap and adjust.

Each takes the words of one clause, in lower case, and the request before. A name means a subject that the
request has, unless it is indefinite: "the dog", "a dog". What is not stated stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pleinair.tools.pocket.catalogue.arrangement import Arrangement, find, kind_of
from pleinair.tools.pocket.catalogue.language import complete
from pleinair.tools.pocket.catalogue.lexicon import CHANGES, Item, begins, scan
from pleinair.tools.pocket.catalogue.phrases import Phrase, Phrases, has_colour, read_phrases
from pleinair.tools.pocket.catalogue.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.refusals import NotUnderstood
from pleinair.tools.pocket.catalogue.species import BY_NAME

Operation = Literal["add", "remove", "keep", "replace", "swap", "adjust"]
Words = list[str]
_OPERATIONS: tuple[Operation, ...] = ("add", "remove", "keep", "replace", "swap", "adjust")
MARKS = (",", ".", ";", "!", "?", ":")  # punctuation between clauses
_NOUNS = ("name", "kind")
_INTO = ("with", "by", "for", "to", "into")
INDEFINITE = ("a", "an", "another", "any")


def joined(words: Sequence[str]) -> str:
    """Return words as one text."""
    return " ".join(words)


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
    words = _with_nouns(words, request)
    if "instead" in words:
        return _instead(words, request)
    operation, length = operation_of(words) or ("adjust", 0)
    rest = words[length:] if operation in ("add", "remove", "keep") else words
    return _with_own_colours(_FUNCTIONS[operation](rest, request))


def _with_own_colours(request: Request) -> Request:
    """Leave out colours that species have anyway; raise NotUnderstood for others: "the flower blue"."""
    for mention in request.mentions:
        if mention.name in BY_NAME and mention.colour and not has_colour(mention.name, mention.colour):
            raise NotUnderstood("colour", mention.colour, (mention.name, kind_of(mention)))
    mentions = (replace(m, colour="") if m.name in BY_NAME else m for m in request.mentions)
    return replace(request, mentions=tuple(mentions))


def _with_nouns(words: Words, request: Request) -> Words:
    """Return "the red one" as "the red car", where only one of the subjects is red."""
    for at in range(2, len(words)):
        _, article, before = f" {joined(words[:at])}".rpartition(" the ")
        is_copy = article and before and words[at] in ("one", "ones")
        fits = _fitting(scan(before)[0], request) if is_copy else []
        if len(fits) == 1:
            return _with_nouns([*words[:at], request.mentions[fits[0]].name, *words[at + 1 :]], request)
    return words


def _fitting(said: Sequence[Item], request: Request) -> list[int]:
    """Return the subjects that have the colours and sizes, or the name, that items state; [] for others."""
    if not said or any(item.role not in ("colour", "size", *_NOUNS) for item in said):
        return []
    return [
        number
        for number, mention in enumerate(request.mentions)
        if all(
            item.word.value in (mention.colour, mention.size, mention.name, kind_of(mention)) for item in said
        )
    ]


def _phrases(words: Words, request: Request) -> tuple[list[Mention], list[Phrase], Phrases]:
    """Read words after a request's subjects; return these as the words change them, and the further parts."""
    phrases = read_phrases(scan(joined(words))[0], request.mentions)
    seeds = [part.mention for part in phrases.parts[: len(request.mentions)] if part.mention]
    return seeds, phrases.parts[len(request.mentions) :], phrases


def _set(request: Request, fields: Mapping[str, str]) -> Request:
    return replace(request, **fields)  # type: ignore[arg-type]


def _add(words: Words, request: Request) -> Request:
    """Add subjects, or falling snow and other weather."""
    _, parts, phrases = _phrases(words, request)
    fields = dict(phrases.fields)
    new = [
        part.mention
        for part in parts
        if part.mention and (part.article != "the" or find(part.mention, request.mentions) is None)
    ]
    if not new and fields.get("background") == "snow":
        fields = {"weather": "snowfall"}
    if len(new) == 1 and len(parts) <= 2:
        number = find(new[0], request.mentions)
        if number is not None and replace(new[0], count=1) == replace(request.mentions[number], count=1):
            return _set(_count(request, number, request.mentions[number].count + new[0].count), fields)
    if not new and not fields:
        raise NotUnderstood("change", joined(words), names_of(request))
    return _set(_arranged(parts, request.mentions, request, words), fields)


def names_of(request: Request) -> tuple[str, ...]:
    """Return the names of a request's subjects, with their colours where two have the same name."""
    names = tuple(mention.name for mention in request.mentions)
    return names if len({*names}) == len(names) else _described(request)


def _count(request: Request, number: int, count: int) -> Request:
    mention = request.mentions[number]
    if count > 3:
        raise NotUnderstood("too many of one", f"{count} × {mention.name}", (mention.name,))
    return _with(request, number, replace(mention, count=count))


def _with(request: Request, number: int, mention: Mention) -> Request:
    return replace(request, mentions=(*request.mentions[:number], mention, *request.mentions[number + 1 :]))


def _arranged(
    parts: Sequence[Phrase],
    subjects: Sequence[Mention],
    request: Request,
    words: Words,
    *,
    keep: bool = True,
) -> Request:
    """Order subjects and further parts; without `keep`, the relation before does not count."""
    relation = next(iter(request.relations), "beside")
    arrangement = Arrangement(parts, subjects, relation if keep and relation != "beside" else "")
    mentions, relations, unplaced = arrangement.arrange(joined(words))
    if unplaced:
        raise NotUnderstood("relations", joined(words), names_of(request))
    return replace(request, mentions=mentions, relations=relations)


def _remove(words: Words, request: Request) -> Request:
    """Remove subjects, some of several ("one of the dogs"), or the place, the light or the weather."""
    _, parts, phrases = _phrases(words, request)
    for name, value in phrases.fields.items():
        request = _clear(request, name, value, words)
    for part in parts:
        if part.mention:
            number = _found(part, request)
            if number is None:
                raise NotUnderstood("change", part.mention.name, names_of(request))
            has_number = part.article in INDEFINITE or any(
                item.role == "number" for item in scan(joined(words))[0]
            )
            left = request.mentions[number].count - part.mention.count if has_number else 0
            request = _count(request, number, left) if left > 0 else _without(request, number)
    if not phrases.fields and not any(part.mention for part in parts):
        raise NotUnderstood("change", joined(words), names_of(request))
    return request


def _found(part: Phrase, request: Request) -> int | None:
    """Return the subject that a phrase means, None if there is none.

    Raises:
        NotUnderstood: "the bird" may be either of two birds that differ.
    """
    mention = part.mention
    number = find(mention, request.mentions) if mention else None
    if mention is None or number is None or part.article in INDEFINITE:
        return number
    meant = request.mentions[number]
    others = [m for m in request.mentions if m != meant and find(mention, [m]) is not None]
    if any(m.size == meant.size or mention.size != meant.size for m in others):
        raise NotUnderstood("change", f"the {mention.name}", _described(request))
    return number


def _clear(request: Request, name: str, value: str, words: Words) -> Request:
    if value == "snow" and request.weather == "snowfall":
        name, value = "weather", "snowfall"
    if name != "weather" and value not in (getattr(request, name), "day"):
        raise NotUnderstood("change", joined(words), names_of(request))
    return _set(request, {name: ""})


def _without(request: Request, number: int) -> Request:
    """Remove a subject; the others are beside each other, unless it was the third."""
    mentions = (*request.mentions[:number], *request.mentions[number + 1 :])
    if not mentions:
        raise NotUnderstood("no subject", f"nothing but {request.mentions[number].name}", names_of(request))
    relations = request.relations[:1] if number == 2 else ()
    return complete(replace(request, mentions=mentions, relations=relations))


def _keep(words: Words, request: Request) -> Request:
    """Remove all subjects but those that are named."""
    named = [part for part in _phrases(words, request)[1] if part.mention]
    numbers = {_found(part, request) for part in named}
    if not numbers or None in numbers:
        raise NotUnderstood("change", joined(words), names_of(request))
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
        return _swap(words, request) if swaps else _adjust(words, request)
    return _put(old, new, request, words)


def _put(old: Words, new: Words, request: Request, words: Words) -> Request:
    """Replace what old words name by what new words name; of a colour or a size alone, change it."""
    if {item.role for item in scan(joined(new))[0]} <= {"colour", "size", "article", "harmless"}:
        return _adjust([*old[: old.index("from") if "from" in old else None], *new], request)
    if (changed := _adjust_some([*old, *new], request)) is not None:
        return changed
    _, parts, phrases = _phrases(new, request)
    mention = next((part.mention for part in parts if part.mention), None)
    if mention is None and not phrases.fields:
        return _adjust(words, request)
    changed = _set(request, phrases.fields)
    if mention is None:
        return changed
    return _put_mention(mention, _target(old, mention, request, words), changed, new)


def _target(old: Words, mention: Mention | None, request: Request, words: Words) -> int:
    """Return the subject that words name; without a name, the one of the same kind, or the only one."""
    if old[-1:] == ["one"] and mention:  # "the red one", of which there are several
        old = [*old[:-1], mention.name]
    subjects = [part for part in _phrases(old, request)[1] if part.mention]
    if subjects:
        number = _found(subjects[0], request)
    elif len(request.mentions) == 1:
        number = 0
    else:
        kinds = [kind_of(subject) for subject in request.mentions]
        kind = kind_of(mention) if mention else ""
        number = kinds.index(kind) if kinds.count(kind) == 1 else None
    if number is None:
        raise NotUnderstood("change", joined(words), names_of(request))
    return number


def _put_mention(mention: Mention, number: int, request: Request, words: Words) -> Request:
    """Replace a subject; its count and its size stay if the words do not state others."""
    before = request.mentions[number]
    stated = any(item.role == "number" for item in scan(joined(words))[0])
    count = mention.count if stated or mention.count > 1 else before.count
    return _with(request, number, replace(mention, count=count, size=mention.size or before.size))


def _instead(words: Words, request: Request) -> Request:
    """Read "a husky instead of the pug", "instead of the pug, a husky" and "a husky instead"."""
    at = words.index("instead")
    before, after = words[:at], words[at + 1 :]
    if after[:1] != ["of"]:
        new = _after_operation([*before, *after])
        _, parts, phrases = _phrases(new, request)
        named = [part.mention for part in parts if part.mention and part.article != "the"]
        if not named or phrases.fields:
            return _adjust([*before, *after], request)
        return _put_mention(named[0], _target([], named[0], request, words), request, new)
    old = after[1:]
    if not before:
        comma = next((at for at, word in enumerate(old) if word in (*MARKS, "a", "an") and at), len(old))
        old, before = old[:comma], [word for word in old[comma:] if word not in MARKS]
    return _put(old, _after_operation(before), request, words)


def _after_operation(words: Words) -> Words:
    operation = operation_of(words)
    return words[operation[1] :] if operation and operation[0] in ("add", "adjust") else words


def _swap(words: Words, request: Request) -> Request:
    """Exchange the places of the first two subjects."""
    named = [
        part.mention for part in _phrases(words[begins(words, CHANGES["swap"]) :], request)[1] if part.mention
    ]
    if len(request.mentions) < 2 or any(find(mention, request.mentions[:2]) is None for mention in named):
        raise NotUnderstood("change", joined(words), names_of(request))
    first, second, *rest = request.mentions
    return replace(request, mentions=(second, first, *rest))


def without_step(words: Words) -> tuple[Words, str]:
    """Return words without "bigger", "smaller" and the like, and which of them it was."""
    for step in ("bigger", "smaller", "plain"):
        for phrase in sorted(CHANGES[step], key=len, reverse=True):
            text = f" {joined(words)} "
            if f" {phrase} " in text:
                return text.replace(f" {phrase} ", " ").split(), step
    return words, ""


def _resized(mention: Mention, step: str) -> Mention:
    sizes = {
        "bigger": "" if mention.size == "small" else "big",
        "smaller": "" if mention.size == "big" else "small",
    }
    return replace(mention, size=sizes.get(step, ""))


def _adjust_some(words: Words, request: Request) -> Request | None:
    """Change some of several by what words say of them: "two of them big"; return None for other words."""
    items = scan(joined(words))[0]
    if not items or items[0].role != "number" or items[0].word.value not in ("1", "2"):
        return None
    count, items = int(items[0].word.value), items[1:]
    roles = [item.role for item in items]
    length = 2 if roles[:1] == ["article"] and items[0].word.value == "the" else 1
    is_named = roles[length - 1 : length] in (["name"], ["kind"], ["pronoun"])
    named, said = (items[:length], items[length:]) if is_named else ([], items)
    said = [item for item in said if item.role != "filler"]
    number = _several(named, request, count)
    if number is None or not said or (said[0].role in ("size", "colour") and said[-1].role in _NOUNS):
        return None
    if _stands(said):
        raise NotUnderstood("relations", joined(words), names_of(request))
    mention = request.mentions[number]
    changed, some = _alone(replace(mention, count=count), said, request)
    rest = _with(request, number, replace(mention, count=mention.count - count))
    changed = replace(changed, mentions=rest.mentions, relations=rest.relations)
    return _arranged([Phrase("subject", mention=some)], rest.mentions, changed, words)


def _alone(mention: Mention, said: Sequence[Item], request: Request) -> tuple[Request, Mention]:
    """Return the request and the subject, as if it were the only one, after what words say of it."""
    single = replace(request, mentions=(mention,), relations=())
    changed = _adjust([item.text for item in said], single)
    return replace(changed, mentions=request.mentions, relations=request.relations), changed.mentions[0]


def _stands(said: Sequence[Item]) -> bool:
    return not {"relation", "side"}.isdisjoint(item.role for item in said)


def _adjust_one(words: Words, request: Request) -> Request | None:
    """Change one of two alike that words tell apart: "the red car green"; return None for other words."""
    items = scan(joined(words))[0]
    noun = next((at for at, item in enumerate(items) if item.role in _NOUNS), 0)
    said = [item for item in items[noun + 1 :] if item.role != "filler"]
    alike = _fitting(items[noun : noun + 1], request)
    fits = _fitting(items[1:noun], request)
    if not items or items[0].word.value != "the" or not said or _stands(said):
        return None
    numbers = [number for number in fits if number in alike]
    if len(alike) < 2 or len(numbers) != 1:
        return None
    changed, mention = _alone(request.mentions[numbers[0]], said, request)
    return _with(changed, numbers[0], mention)


def _several(named: Sequence[Item], request: Request, count: int) -> int | None:
    """Return the subject, of which there are more than `count`, that items name, or the only one."""
    names = [Mention(item.word.value) for item in named if item.role in _NOUNS]
    several = [
        number
        for number, mention in enumerate(request.mentions)
        if mention.count > count and all(find(name, [mention]) is not None for name in names)
    ]
    return several[0] if len(several) == 1 else None


def _adjust(words: Words, request: Request) -> Request:
    """Change colours, counts, sizes, relations and settings; "make the bird a hoopoe" replaces."""
    words = words[begins(words, CHANGES["verbs"]) :]
    if (changed := _adjust_some(words, request) or _adjust_one(words, request)) is not None:
        return changed
    words, step = without_step(words)
    words = [word for word in words if word != "into"]
    is_of_all = not {"them", "all", "both", "everything"}.isdisjoint(words)
    if is_of_all and len(request.mentions) > 1:
        words = [*words, "all"]
    seeds, parts, phrases = _phrases(words, request)
    named = [part for part in parts if part.mention]
    targets = [_existing(part, request, of_any=bool(step)) for part in named]
    changed = _set(request, phrases.fields)
    numbers = [number for number in targets if number is not None]
    if any(part.role in ("relation", "side") for part in parts):
        return _placed(parts, seeds, numbers, changed, words)
    if None in targets:
        return _exchanged(named, targets, changed, words)
    if step:
        meant = range(len(seeds)) if is_of_all else numbers or [_target([], None, request, words)]
        return replace(
            changed, mentions=tuple(_resized(m, step) if n in meant else m for n, m in enumerate(seeds))
        )
    return _merged(named, seeds, changed, is_of_all=is_of_all, words=words)


def _exchanged(
    named: Sequence[Phrase], targets: Sequence[int | None], request: Request, words: Words
) -> Request:
    """Replace each subject by the new one after it ("the bird a hoopoe, the dog a pug"), or the only one."""
    new = [
        part.mention for part, target in zip(named, targets, strict=True) if part.mention and target is None
    ]
    numbers = [target for target in targets if target is not None] or [_target([], new[0], request, words)]
    if len(new) != len(numbers) or (len(named) > 1 and None in targets[::2]):
        raise NotUnderstood("change", joined(words), names_of(request))
    for number, mention in zip(numbers, new, strict=True):
        request = _put_mention(mention, number, request, words)
    return request


def _existing(part: Phrase, request: Request, *, of_any: bool = False) -> int | None:
    """Return the subject that a phrase means; "a dog" means a new one, unless `of_any`."""
    if part.mention is None or (part.article in INDEFINITE and not of_any):
        return None
    number = find(part.mention, request.mentions)
    if number is not None and part.mention.colour:
        return number
    plain = replace(part.mention, colour="")
    fits = [n for n, subject in enumerate(request.mentions) if find(plain, [subject]) is not None]
    if len(fits) > 1:
        raise NotUnderstood("change", f"the {part.mention.name}", _described(request))
    return next(iter(fits), None)


def _described(request: Request) -> tuple[str, ...]:
    return tuple(
        " ".join(filter(None, (mention.size, mention.colour, mention.name))) for mention in request.mentions
    )


def _placed(
    parts: Sequence[Phrase], seeds: Sequence[Mention], targets: Sequence[int], request: Request, words: Words
) -> Request:
    """Place a subject elsewhere: "the dog behind the car", "it on the left", "it on a car"."""
    placed = [
        replace(part, article="the") if part.mention and find(part.mention, seeds) is not None else part
        for part in parts
    ]
    if parts[0].role == "relation" and targets and len(seeds) == 2:
        placed.insert(0, Phrase("subject", mention=seeds[1 - targets[0]], article="the"))
    elif parts[0].role in ("relation", "side") and not targets:
        placed.insert(0, Phrase("subject", mention=seeds[_target([], None, request, words)], article="the"))
    return _arranged(placed, seeds, request, words, keep=False)


def _merged(
    named: Sequence[Phrase], seeds: Sequence[Mention], request: Request, *, is_of_all: bool, words: Words
) -> Request:
    """Set the colours, sizes and counts that are stated of subjects."""
    has_number = any(item.role == "number" for item in scan(joined(words))[0])
    if tuple(seeds) != request.mentions and len(seeds) > 1 and not is_of_all:
        raise NotUnderstood("change", joined(words), names_of(request))
    changed = replace(request, mentions=tuple(seeds))
    for part in named:
        number = _existing(part, request)
        if part.mention and number is not None:
            before = changed.mentions[number]
            stated = replace(
                before,
                size=part.mention.size or before.size,
                colour=part.mention.colour or before.colour,
                count=part.mention.count if has_number else before.count,
            )
            changed = _with(changed, number, stated)
    if changed.mentions == request.mentions and not has_setting(words):
        raise NotUnderstood("change", joined(words), names_of(request))
    return changed


def has_setting(words: Words) -> bool:
    """Return whether words are about the place, the light or the weather."""
    return any(item.role == "setting" for item in scan(joined(words))[0])


_FUNCTIONS: Mapping[Operation, Callable[[Words, Request], Request]] = {
    "add": _add,
    "remove": _remove,
    "keep": _keep,
    "replace": _replace,
    "swap": _swap,
    "adjust": _adjust,
}
