"""Changes of a request in a chat: things added, removed or replaced, colours, counts, sizes, places.

A text is split into clauses, each of which begins a change ("add a dog and make it night"), and each is
applied to the request. What is not stated stays. A text that names things as a prompt does is a new request.
Not covered: changes of changes ("a bit less"), and references to images by what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pleinair.tools.pocket.catalogue.arrangement import Arrangement, check_counts, find, kind_of
from pleinair.tools.pocket.catalogue.language import complete, read
from pleinair.tools.pocket.catalogue.lexicon import CHANGES, scan, words_of
from pleinair.tools.pocket.catalogue.phrases import Phrase, Phrases, read_phrases
from pleinair.tools.pocket.catalogue.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.refusals import NotUnderstood

Operation = Literal["add", "remove", "keep", "replace", "swap", "adjust"]
_Words = list[str]
_OPERATIONS: tuple[Operation, ...] = ("add", "remove", "keep", "replace", "swap", "adjust")
_MARKS = (",", ".", ";", "!", "?", ":")
_JOINTS = (*_MARKS, "and", "then", "but", "also")
_INTO = ("with", "by", "for", "to", "into")
_INDEFINITE = ("a", "an", "another", "any")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True, slots=True)
class Change:
    """Request after a change; what else the text asks of the caller is in the other fields."""

    request: Request
    is_new: bool = False  # a prompt of its own, not a change of the request before
    again: bool = False  # the same once more, with another seed
    other_reference_of: tuple[str, ...] = ()  # names of subjects whose references shall be others
    earlier: int = 0  # image of the chat to go back to, from 1; -1 is the one before the last
    omitted: tuple[str, ...] = ()  # as in a `Reading`
    corrected: Mapping[str, str] = field(default_factory=dict)


def change(text: str, before: Request) -> Change:
    """Return the request that a text makes of the one before.

    Raises:
        NotUnderstood: the text is no change, or asks for what the world cannot draw; nothing is changed.
    """
    words, before = words_of(text), complete(before)
    for_caller = _for_caller(words, before)
    if for_caller is not None:
        return for_caller
    if _is_new(words, before):
        reading = read(text)
        return Change(reading.request, True, omitted=reading.omitted, corrected=reading.corrected)
    request = before
    for clause in filter(None, _clauses(words)):  # "the same, but at night" has an empty one
        request = _apply(clause, request)
    check_counts(request.mentions, text)
    if request == before and not _has_setting(words):
        raise NotUnderstood("change", " ".join(text.split()), _names(before))
    items, corrections = scan(text)
    narrowed = {item.text: item.word.value for item in items if item.word.wider}
    omitted = tuple(item.text for item in items if item.role == "harmless")
    return Change(request, omitted=omitted, corrected=corrections | narrowed)


def _text(words: Sequence[str]) -> str:
    return " ".join(words)


def _begins(words: Sequence[str], phrases: Sequence[str]) -> int:
    """Return the number of words of the longest phrase with which words begin, 0 for none."""
    lengths = [len(phrase.split()) for phrase in phrases if words[: len(phrase.split())] == phrase.split()]
    return max(lengths, default=0)


def _without_politeness(words: _Words) -> _Words:
    while words and (words[0] in _MARKS or _begins(words, CHANGES["polite"])):
        words = words[max(1, _begins(words, CHANGES["polite"])) :]
    while words and (words[-1] in (*_MARKS, "please", "thanks", "now", "too", "again")):
        words = words[:-1]
    begins_twice = words[:1] in (["and"], ["also"]) and _operation(words[1:])  # "and make it night"
    return words[1:] if begins_twice else words


def _operation(words: _Words) -> tuple[Operation, int] | None:
    """Return the operation that words begin with, and the number of words that name it."""
    lengths = {operation: _begins(words, CHANGES[operation]) for operation in _OPERATIONS}
    operation = max(_OPERATIONS, key=lambda name: lengths[name])
    return (operation, lengths[operation]) if lengths[operation] else None


def _for_caller(words: _Words, before: Request) -> Change | None:
    """Return what only the caller can do: draw again, take other references, go back."""
    plain = [word for word in words if word not in (*_MARKS, "please", "now", "just", "thanks")]
    if _text(plain) in CHANGES["again"]:
        return Change(before, again=True)
    length = _begins(plain, CHANGES["other"])
    concepts = _meant(_text(plain[length:]), before) if length else ()
    if concepts:
        return Change(before, other_reference_of=concepts)
    earlier = _earlier(plain)
    return Change(before, earlier=earlier) if earlier else None


def _earlier(words: _Words) -> int:
    """Return the number of the image that "the second was better" means, -1 for "go back", else 0."""
    text = f" {_text(words)} "
    names_things = any(item.role in ("name", "kind", "setting") for item in scan(text)[0])
    if names_things or not any(f" {phrase} " in text for phrase in CHANGES["earlier"]):
        return 0
    number = next((at for at, ordinal in enumerate(_ORDINALS, start=1) if ordinal in words), 0)
    return number or (-1 if {"back", "undo", "previous", "last", "before"} & set(words) else 0)


def _meant(text: str, before: Request) -> tuple[str, ...]:
    """Return the names of the subjects that "that hoopoe", "that bird" or "that one" may mean."""
    if text in CHANGES["any"]:
        return tuple(dict.fromkeys(mention.name for mention in before.mentions))
    named = {item.word.value for item in scan(text)[0] if item.role in ("name", "kind")}
    meant = (mention.name for mention in before.mentions if named & {mention.name, kind_of(mention)})
    return tuple(dict.fromkeys(meant))


def _is_new(words: _Words, before: Request) -> bool:
    """Return whether words are a prompt of their own: they name things, and no change of those before."""
    core = _without_politeness(words)
    items, _ = scan(_text(core))
    roles = [item.role for item in items]
    if not core or _operation(core) or "instead" in core or _sizes(core)[1]:
        return False
    nouns = [item.word.value for item in items if item.role in ("name", "kind")]
    if not nouns:
        return not set(roles) & {"setting", "size", "colour", "number", "relation", "side"}
    is_counted = roles[0] == "number" and len(items) == 2  # "two dogs"
    return find(Mention(nouns[0]), before.mentions) is None or not (is_counted or core[0] == "the")


def _clauses(words: _Words) -> Iterator[_Words]:
    """Yield the parts of a text that each begin a change or are about the place, the light or the weather."""
    clause: _Words = []
    for at, word in enumerate(words):
        operation = _operation(_without_politeness(clause))
        in_removal = operation is not None and operation[0] == "remove"
        if word in _JOINTS and clause and _begins_clause(_without_politeness(words[at + 1 :]), in_removal):
            yield _without_politeness(clause)
            clause = []
        elif word not in _MARKS or clause:
            clause.append(word)
    yield _without_politeness(clause)


def _begins_clause(words: _Words, in_removal: bool) -> bool:
    """Return whether words begin a clause; in "without the rain and the fog" the fog does not."""
    operation = _operation(words)
    if operation and operation[0] != "add":
        return True
    if words[:1] == ["add"]:
        return True
    roles = [item.role for item in scan(_text(words[:6]))[0]]
    if in_removal and roles[:1] != ["inside"]:
        return False
    while roles and roles[0] in ("inside", "relation", "article", "filler", "harmless", "size"):
        roles = roles[1:]
    return roles[:1] == ["setting"]


def _apply(words: _Words, request: Request) -> Request:
    if "instead" in words:
        return _instead(words, request)
    operation, length = _operation(words) or ("adjust", 0)
    rest = words[length:] if operation in ("add", "remove", "keep") else words
    return _FUNCTIONS[operation](rest, request)


def _phrases(words: _Words, request: Request) -> tuple[list[Mention], list[Phrase], Phrases]:
    """Read words after a request's subjects; return these as the words change them, and the further parts."""
    phrases = read_phrases(scan(_text(words))[0], request.mentions)
    seeds = [part.mention for part in phrases.parts[: len(request.mentions)] if part.mention]
    return seeds, phrases.parts[len(request.mentions) :], phrases


def _set(request: Request, fields: Mapping[str, str]) -> Request:
    return replace(request, **fields)  # type: ignore[arg-type]


def _add(words: _Words, request: Request) -> Request:
    """Add subjects, or falling snow and other weather."""
    _, parts, phrases = _phrases(words, request)
    fields = dict(phrases.fields)
    new = [part.mention for part in parts if part.mention and part.article != "the"]
    if not new and fields.get("background") == "snow":
        fields = {"weather": "snowfall"}
    if len(new) == 1 and len(parts) <= 2:
        number = find(new[0], request.mentions)
        if number is not None and replace(new[0], count=1) == replace(request.mentions[number], count=1):
            return _set(_count(request, number, request.mentions[number].count + new[0].count), fields)
    if not new and not fields:
        raise NotUnderstood("change", _text(words), _names(request))
    return _set(_arranged(parts, request.mentions, request, words), fields)


def _names(request: Request) -> tuple[str, ...]:
    return tuple(mention.name for mention in request.mentions)


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
    words: _Words,
    *,
    keep: bool = True,
) -> Request:
    """Order subjects and further parts; without `keep`, the relation before does not count."""
    relation = next(iter(request.relations), "beside")
    arrangement = Arrangement(parts, subjects, relation if keep and relation != "beside" else "")
    mentions, relations, unplaced = arrangement.arrange(_text(words))
    if unplaced:
        raise NotUnderstood("relations", _text(words), _names(request))
    return replace(request, mentions=mentions, relations=relations)


def _remove(words: _Words, request: Request) -> Request:
    """Remove subjects, some of several ("one of the dogs"), or the place, the light or the weather."""
    _, parts, phrases = _phrases(words, request)
    for name, value in phrases.fields.items():
        request = _clear(request, name, value, words)
    for part in parts:
        if part.mention:
            number = find(part.mention, request.mentions)
            if number is None:
                raise NotUnderstood("change", part.mention.name, _names(request))
            has_number = part.article in _INDEFINITE or any(
                item.role == "number" for item in scan(_text(words))[0]
            )
            left = request.mentions[number].count - part.mention.count if has_number else 0
            request = _count(request, number, left) if left > 0 else _without(request, number)
    if not phrases.fields and not any(part.mention for part in parts):
        raise NotUnderstood("change", _text(words), _names(request))
    return request


def _clear(request: Request, name: str, value: str, words: _Words) -> Request:
    if value == "snow" and request.weather == "snowfall":
        name, value = "weather", "snowfall"
    if name != "weather" and value not in (getattr(request, name), "day"):
        raise NotUnderstood("change", _text(words), _names(request))
    return _set(request, {name: ""})


def _without(request: Request, number: int) -> Request:
    """Remove a subject; the others are beside each other, unless it was the third."""
    mentions = (*request.mentions[:number], *request.mentions[number + 1 :])
    if not mentions:
        raise NotUnderstood("no subject", f"nothing but {request.mentions[number].name}", _names(request))
    relations = request.relations[:1] if number == 2 else ()
    return complete(replace(request, mentions=mentions, relations=relations))


def _keep(words: _Words, request: Request) -> Request:
    """Remove all subjects but those that are named."""
    named = [part.mention for part in _phrases(words, request)[1] if part.mention]
    numbers = {find(mention, request.mentions) for mention in named}
    if not numbers or None in numbers:
        raise NotUnderstood("change", _text(words), _names(request))
    for number in sorted(set(range(len(request.mentions))) - numbers, reverse=True):
        request = _without(request, number)
    return request


def _replace(words: _Words, request: Request) -> Request:
    """Replace a subject or a place by another: "replace the pug with a husky"; else adjust or swap."""
    at = next((at for at in range(len(words) - 1, 0, -1) if words[at] in _INTO), 0)
    length = _begins(words, CHANGES["replace"])
    old, new = words[length:at], words[at + 1 :]
    if not at or not old or old == ["it"]:
        swaps = words[0] in ("swap", "switch", "exchange")
        return _swap(words, request) if swaps else _adjust(words, request)
    return _put(old, new, request, words)


def _put(old: _Words, new: _Words, request: Request, words: _Words) -> Request:
    """Put what new words name in the place of what old words name."""
    _, parts, phrases = _phrases(new, request)
    mention = next((part.mention for part in parts if part.mention), None)
    if mention is None or phrases.fields:
        return _set(request, phrases.fields) if phrases.fields else _adjust(words, request)
    return _put_mention(mention, _target(old, mention, request, words), request, new)


def _target(old: _Words, mention: Mention | None, request: Request, words: _Words) -> int:
    """Return the subject that words name; without a name, the one of the same kind, or the only one."""
    subjects = [part.mention for part in _phrases(old, request)[1] if part.mention]
    if subjects:
        number = find(subjects[0], request.mentions)
    elif len(request.mentions) == 1:
        number = 0
    else:
        kinds = [kind_of(subject) for subject in request.mentions]
        kind = kind_of(mention) if mention else ""
        number = kinds.index(kind) if kinds.count(kind) == 1 else None
    if number is None:
        raise NotUnderstood("change", _text(words), _names(request))
    return number


def _put_mention(mention: Mention, number: int, request: Request, words: _Words) -> Request:
    """Replace a subject; its count and its size stay if the words do not state others."""
    before = request.mentions[number]
    stated = any(item.role == "number" for item in scan(_text(words))[0])
    count = mention.count if stated or mention.count > 1 else before.count
    return _with(request, number, replace(mention, count=count, size=mention.size or before.size))


def _instead(words: _Words, request: Request) -> Request:
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
        comma = next((at for at, word in enumerate(old) if word in (*_MARKS, "a", "an") and at), len(old))
        old, before = old[:comma], [word for word in old[comma:] if word not in _MARKS]
    return _put(old, _after_operation(before), request, words)


def _after_operation(words: _Words) -> _Words:
    operation = _operation(words)
    return words[operation[1] :] if operation and operation[0] in ("add", "adjust") else words


def _swap(words: _Words, request: Request) -> Request:
    """Let the first two subjects change places."""
    named = [
        part.mention
        for part in _phrases(words[_begins(words, CHANGES["swap"]) :], request)[1]
        if part.mention
    ]
    if len(request.mentions) < 2 or any(find(mention, request.mentions[:2]) is None for mention in named):
        raise NotUnderstood("change", _text(words), _names(request))
    first, second, *rest = request.mentions
    return replace(request, mentions=(second, first, *rest))


def _sizes(words: _Words) -> tuple[_Words, str]:
    """Return words without "bigger", "smaller" and the like, and which of them it was."""
    for step in ("bigger", "smaller", "plain"):
        for phrase in sorted(CHANGES[step], key=len, reverse=True):
            text = f" {_text(words)} "
            if f" {phrase} " in text:
                return text.replace(f" {phrase} ", " ").split(), step
    return words, ""


def _resized(mention: Mention, step: str) -> Mention:
    sizes = {
        "bigger": "" if mention.size == "small" else "big",
        "smaller": "" if mention.size == "big" else "small",
    }
    return replace(mention, size=sizes.get(step, ""))


def _adjust(words: _Words, request: Request) -> Request:
    """Change colours, counts, sizes, relations and settings; "make the bird a hoopoe" replaces."""
    words, step = _sizes(words[_begins(words, CHANGES["verbs"]) :])
    words = [word for word in words if word != "into"]
    is_of_all = not {"them", "all", "both", "everything"}.isdisjoint(words)
    if is_of_all and len(request.mentions) > 1:
        words = [*words, "all"]
    seeds, parts, phrases = _phrases(words, request)
    named = [part for part in parts if part.mention]
    targets = [_existing(part, request, of_any=bool(step)) for part in named]
    changed = _set(request, phrases.fields)
    if None in targets:
        return _exchanged(named, targets, changed, words)
    numbers = [number for number in targets if number is not None]
    if any(part.role in ("relation", "side") for part in parts):
        return _placed(parts, seeds, numbers, changed, words)
    if step:
        meant = range(len(seeds)) if is_of_all else numbers or [_target([], None, request, words)]
        return replace(
            changed, mentions=tuple(_resized(m, step) if n in meant else m for n, m in enumerate(seeds))
        )
    return _merged(named, seeds, changed, is_of_all=is_of_all, words=words)


def _exchanged(
    named: Sequence[Phrase], targets: Sequence[int | None], request: Request, words: _Words
) -> Request:
    """Replace each subject by the new one after it ("the bird a hoopoe, the dog a pug"), or the only one."""
    new = [
        part.mention for part, target in zip(named, targets, strict=True) if part.mention and target is None
    ]
    numbers = [target for target in targets if target is not None] or [_target([], new[0], request, words)]
    if len(new) != len(numbers) or (len(named) > 1 and None in targets[::2]):
        raise NotUnderstood("change", _text(words), _names(request))
    for number, mention in zip(numbers, new, strict=True):
        request = _put_mention(mention, number, request, words)
    return request


def _existing(part: Phrase, request: Request, *, of_any: bool = False) -> int | None:
    """Return the subject that a phrase means; "a dog" means a new one, unless `of_any`."""
    if part.mention is None or (part.article in _INDEFINITE and not of_any):
        return None
    plain = replace(part.mention, colour="")
    return find(plain, request.mentions)


def _placed(
    parts: Sequence[Phrase], seeds: Sequence[Mention], targets: Sequence[int], request: Request, words: _Words
) -> Request:
    """Put a subject elsewhere: "the dog behind the car", "it on the left"."""
    definite = [replace(part, article="the") if part.mention else part for part in parts]
    if parts[0].role == "relation" and targets and len(seeds) == 2:
        definite.insert(0, Phrase("subject", mention=seeds[1 - targets[0]], article="the"))
    elif parts[0].role == "side" and not targets:
        definite.insert(0, Phrase("subject", mention=seeds[_target([], None, request, words)], article="the"))
    return _arranged(definite, seeds, request, words, keep=False)


def _merged(
    named: Sequence[Phrase], seeds: Sequence[Mention], request: Request, *, is_of_all: bool, words: _Words
) -> Request:
    """Set the colours, sizes and counts that are stated of subjects."""
    has_number = any(item.role == "number" for item in scan(_text(words))[0])
    if tuple(seeds) != request.mentions and len(seeds) > 1 and not is_of_all:
        raise NotUnderstood("change", _text(words), _names(request))
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
    if changed.mentions == request.mentions and not _has_setting(words):
        raise NotUnderstood("change", _text(words), _names(request))
    return changed


def _has_setting(words: _Words) -> bool:
    return any(item.role == "setting" for item in scan(_text(words))[0])


_FUNCTIONS: Mapping[Operation, Callable[[_Words, Request], Request]] = {
    "add": _add,
    "remove": _remove,
    "keep": _keep,
    "replace": _replace,
    "swap": _swap,
    "adjust": _adjust,
}
