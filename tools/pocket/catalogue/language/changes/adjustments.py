"""Adjustments of a request in a change: colours, counts, sizes, relations and settings of its subjects.

"make the bird a hoopoe" replaces, "two of them red" divides what there are several of. What is said of one
subject is read as if it were the only one. What is not stated stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from pleinair.tools.pocket.catalogue.language.arrangement import Arrangement, find
from pleinair.tools.pocket.catalogue.language.changes.references import (
    INDEFINITE,
    NOUNS,
    described,
    fitting,
    names_of,
    several,
    target,
)
from pleinair.tools.pocket.catalogue.language.lexicon import CHANGES, Item, begins, scan
from pleinair.tools.pocket.catalogue.language.phrases import Phrase, Phrases, read_phrases
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood

Words = list[str]
OF_ALL = ("them", "all", "both", "everything")


def joined(words: Sequence[str]) -> str:
    """Return words as one text."""
    return " ".join(words)


def phrases_of(words: Words, request: Request) -> tuple[list[Mention], list[Phrase], Phrases]:
    """Read words after a request's subjects; return these as the words change them, and the further parts."""
    phrases = read_phrases(scan(joined(words))[0], request.mentions)
    seeds = [part.mention for part in phrases.parts[: len(request.mentions)] if part.mention]
    return seeds, phrases.parts[len(request.mentions) :], phrases


def with_fields(request: Request, fields: Mapping[str, str]) -> Request:
    """Return a request with other fields."""
    return replace(request, **fields)  # type: ignore[arg-type]


def with_mention(request: Request, number: int, mention: Mention) -> Request:
    """Return a request with another mention in the place of one."""
    return replace(request, mentions=(*request.mentions[:number], mention, *request.mentions[number + 1 :]))


def with_instead(mention: Mention, number: int, request: Request, words: Words) -> Request:
    """Replace a subject; its count and its size stay if the words do not state others."""
    before = request.mentions[number]
    count = mention.count if has_number(words) or mention.count > 1 else before.count
    return with_mention(request, number, replace(mention, count=count, size=mention.size or before.size))


def arranged(
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


def has_number(words: Words) -> bool:
    """Return whether words state a number."""
    return any(item.role == "number" for item in scan(joined(words))[0])


def has_setting(words: Words) -> bool:
    """Return whether words are about the place, the light or the weather."""
    return any(item.role == "setting" for item in scan(joined(words))[0])


def without_step(words: Words) -> tuple[Words, str]:
    """Return words without "bigger", "smaller" and the like, and which of them it was."""
    for step in ("bigger", "smaller", "plain"):
        for phrase in sorted(CHANGES[step], key=len, reverse=True):
            text = f" {joined(words)} "
            if f" {phrase} " in text:
                return text.replace(f" {phrase} ", " ").split(), step
    return words, ""


def adjust(words: Words, request: Request) -> Request:
    """Change what words say of subjects and settings.

    Raises:
        NotUnderstood: they say nothing new, or of a subject that is not there or may be either of two.
    """
    words = words[begins(words, CHANGES["verbs"]) :]
    for read in (adjust_some, _adjust_each, _adjust_one):
        if (changed := read(words, request)) is not None:
            return changed
    return _adjust_named(*without_step([word for word in words if word != "into"]), request)


def _adjust_named(words: Words, step: str, request: Request) -> Request:
    is_of_all = not set(OF_ALL).isdisjoint(words)
    if is_of_all and len(request.mentions) > 1:
        words = [*words, "all"]
    words = _without_place_before(words, request)
    seeds, parts, phrases = phrases_of(words, request)
    _check_colours(words, parts, request)
    if tuple(seeds) != request.mentions and len(seeds) > 1 and not is_of_all:
        raise NotUnderstood("change", joined(words), names_of(request))
    changed = with_fields(request, phrases.fields)
    named = [part for part in parts if part.mention]
    targets = [_existing(part, request, of_any=bool(step)) for part in named]
    numbers = [number for number in targets if number is not None]
    places = any(part.role in ("relation", "side") for part in parts)
    is_unknown = None in targets and not places
    if len({*numbers}) < len(numbers) or (step and is_unknown):  # "two dogs, one big and one small"
        raise NotUnderstood("change", joined(words), names_of(request))
    if is_unknown:
        return _exchanged(named, targets, changed, words)
    seeds = _stated(named, targets, seeds, words)
    if step:
        seeds = _resized(seeds, step, range(len(seeds)) if is_of_all else numbers, request, words)
    if places:
        return _placed(parts, seeds, numbers, changed, words)
    return _if_changed(request, replace(changed, mentions=tuple(seeds)), words, step)


def _without_place_before(words: Words, request: Request) -> Words:
    """Return "the lake a beach" as "a beach" where the request has the lake."""
    items = scan(joined(words))[0]
    settings = [item for item in items if item.role == "setting"]
    before = (request.background, request.light, request.weather)
    if len(settings) == 2 and settings[0].word.value in before:
        return [word for item in items if item is not settings[0] for word in item.text.split()]
    return words


def _check_colours(words: Words, parts: Sequence[Phrase], request: Request) -> None:
    """Raise NotUnderstood for a coloured place ("the sky blue"), and for more colours than subjects."""
    items = [item for item in scan(joined(words))[0] if item.role not in ("filler", "harmless")]
    for item, after in pairwise(items):
        is_sky = item.role == "article" and after.role == "colour" and after.text.startswith("sky ")
        if is_sky or (item.role == "setting" and after.role == "colour"):
            raise NotUnderstood("not shown", f"{item.text} {after.text}", names_of(request))
    new = [item.text for item in items if item.role == "colour"]
    new = [text for text in new if text not in {mention.colour for mention in request.mentions}]
    if len(new) > max(1, sum(part.mention is not None for part in parts)):
        raise NotUnderstood("colour", " and ".join(new))


def _if_changed(before: Request, changed: Request, words: Words, step: str) -> Request:
    if changed.mentions == before.mentions and not step and not has_setting(words):
        raise NotUnderstood("change", joined(words), names_of(before))
    return changed


def _stated(
    named: Sequence[Phrase], targets: Sequence[int | None], seeds: Sequence[Mention], words: Words
) -> list[Mention]:
    """Return subjects with the colours, sizes and counts that are stated of them."""
    is_counted = has_number(words)
    changed = list(seeds)
    for part, number in zip(named, targets, strict=True):
        if part.mention and number is not None:
            before = changed[number]
            changed[number] = replace(
                before,
                size=part.mention.size or before.size,
                colour=part.mention.colour or before.colour,
                count=part.mention.count if is_counted else before.count,
            )
    return changed


def _resized(
    seeds: Sequence[Mention], step: str, numbers: Sequence[int], request: Request, words: Words
) -> list[Mention]:
    """Return subjects of which some are bigger or smaller by a step; without numbers it is the only one."""
    meant = numbers or [target([], None, request, joined(words))]
    sizes = {"bigger": ("small", "big"), "smaller": ("big", "small")}
    other, size = sizes.get(step, ("", ""))
    return [
        replace(mention, size="" if mention.size == other else size) if number in meant else mention
        for number, mention in enumerate(seeds)
    ]


def _existing(part: Phrase, request: Request, *, of_any: bool = False) -> int | None:
    """Return the subject that a phrase means; "a dog" means a new one, unless `of_any`."""
    if part.mention is None or (part.article in INDEFINITE and not of_any):
        return None
    number = find(part.mention, request.mentions)
    if number is not None and part.mention.colour:
        return number
    plain = replace(part.mention, colour="")
    fits = [n for n, subject in enumerate(request.mentions) if find(plain, [subject]) is not None]
    fits = [n for n in fits if request.mentions[n].name == plain.name] or fits
    if len(fits) > 1:
        raise NotUnderstood("change", f"the {part.mention.name}", described(request))
    return next(iter(fits), None)


def _exchanged(
    named: Sequence[Phrase], targets: Sequence[int | None], request: Request, words: Words
) -> Request:
    """Replace each subject by the new one after it ("the bird a hoopoe, the dog a pug"), or the only one."""
    new = [
        part.mention for part, number in zip(named, targets, strict=True) if part.mention and number is None
    ]
    numbers = [number for number in targets if number is not None]
    numbers = numbers or [target([], new[0], request, joined(words))]
    if len(new) != len(numbers) or (len(named) > 1 and None in targets[::2]):
        raise NotUnderstood("change", joined(words), names_of(request))
    for number, mention in zip(numbers, new, strict=True):
        request = with_instead(mention, number, request, words)
    return request


def _placed(
    parts: Sequence[Phrase], seeds: Sequence[Mention], targets: Sequence[int], request: Request, words: Words
) -> Request:
    """Place a subject elsewhere: "the dog behind the car", "it on the left", "it on a car"."""
    placed = [
        replace(part, article="the") if part.mention and find(part.mention, seeds) is not None else part
        for part in parts
    ]
    if len(targets) == 1 and len(seeds) == 2:  # "put the robin on it"
        other = Phrase("subject", mention=seeds[1 - targets[0]], article="the")
        placed = [other if part.role == "pronoun" else part for part in placed]
    if parts[0].role == "relation" and targets and len(seeds) == 2:
        placed.insert(0, Phrase("subject", mention=seeds[1 - targets[0]], article="the"))
    elif [part.role for part in parts] == ["relation", "pronoun"] and len(seeds) == 2:  # "behind it"
        subjects = [Phrase("subject", mention=seed, article="the") for seed in seeds]
        placed = [subjects[0], parts[0], subjects[1]]
    elif parts[0].role in ("relation", "side") and not targets:
        number = target([], None, request, joined(words))
        placed.insert(0, Phrase("subject", mention=seeds[number], article="the"))
    return arranged(placed, seeds, request, words, keep=False)


def adjust_some(words: Words, request: Request) -> Request | None:
    """Change some of several by what words say of them: "two of them big"; return None for other words."""
    items = scan(joined(words))[0]
    if not items or items[0].role != "number" or items[0].word.value not in ("1", "2"):
        return None
    count, is_part, items = int(items[0].word.value), items[0].text.endswith("of"), items[1:]
    roles = [item.role for item in items]
    length = 2 if roles[:1] == ["article"] and items[0].word.value == "the" else 1
    is_named = roles[length - 1 : length] in (["name"], ["kind"], ["pronoun"])
    named, said = (items[:length], items[length:]) if is_named else ([], items)
    said = [item for item in said if item.role != "filler"]
    number = several(named, request, count)
    if not said or (said[0].role in ("size", "colour") and said[-1].role in NOUNS):
        return None
    if number is None and not is_part:
        return None
    if any(item.role == "number" for item in said):  # "one red, one blue"
        raise NotUnderstood("change", joined(words), described(request))
    if number is None or _stands(said):
        raise NotUnderstood(
            "relations" if number is not None else "change", joined(words), described(request)
        )
    mention = request.mentions[number]
    changed, some = _alone(replace(mention, count=count), said, request)
    rest = with_mention(request, number, replace(mention, count=mention.count - count))
    changed = replace(changed, mentions=rest.mentions, relations=rest.relations)
    return arranged([Phrase("subject", mention=some)], rest.mentions, changed, words)


def _adjust_each(words: Words, request: Request) -> Request | None:
    """Change all subjects of a name by what words say: "both cars red"; return None for other words."""
    items = scan(joined(words))[0]
    noun = next((at for at, item in enumerate(items) if item.role in NOUNS), 0)
    said = [item for item in items[noun + 1 :] if item.role != "filler"]
    is_of_each = any(item.role == "all" for item in items[:noun])
    if not is_of_each or not said or _stands(said) or said[-1].role in NOUNS:
        return None
    numbers = fitting(items[noun : noun + 1], request)
    if not numbers:
        raise NotUnderstood("change", joined(words), names_of(request))
    for number in numbers:
        changed, mention = _alone(request.mentions[number], said, request)
        request = with_mention(changed, number, mention)
    return request


def _adjust_one(words: Words, request: Request) -> Request | None:
    """Change one of two alike that words tell apart: "the red car green"; return None for other words."""
    items = scan(joined(words))[0]
    noun = next((at for at, item in enumerate(items) if item.role in NOUNS), 0)
    said = [item for item in items[noun + 1 :] if item.role != "filler"]
    if not items or items[0].word.value != "the" or not said or _stands(said):
        return None
    alike = fitting(items[noun : noun + 1], request)
    numbers = [number for number in fitting(items[1:noun], request) if number in alike]
    if len(alike) < 2 or len(numbers) != 1:
        return None
    changed, mention = _alone(request.mentions[numbers[0]], said, request)
    return with_mention(changed, numbers[0], mention)


def _stands(said: Sequence[Item]) -> bool:
    return not {"relation", "side"}.isdisjoint(item.role for item in said)


def _alone(mention: Mention, said: Sequence[Item], request: Request) -> tuple[Request, Mention]:
    """Return the request and the subject, as if it were the only one, after what words say of it."""
    single = replace(request, mentions=(mention,), relations=())
    changed = adjust([item.text for item in said], single)
    return replace(changed, mentions=request.mentions, relations=request.relations), changed.mentions[0]
