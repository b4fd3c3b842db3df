"""Changes of a request in a chat: what is new, what is changed, and what the caller has to do.

A text is split into clauses, each of which begins a change ("add a dog and make it night"), and each is
applied to the request by `operations.apply`. A text that names things as a prompt does is a new request. Not
covered: changes of changes ("a bit less"), and references to images by what they show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, takewhile

from pleinair.tools.pocket.catalogue.language.arrangement import check_counts, find, kind_of
from pleinair.tools.pocket.catalogue.language.changes.adjustments import (
    Words,
    has_setting,
    joined,
    with_mention,
    without_step,
)
from pleinair.tools.pocket.catalogue.language.changes.operations import apply, operation_of
from pleinair.tools.pocket.catalogue.language.changes.references import INDEFINITE, names_of, with_names
from pleinair.tools.pocket.catalogue.language.changes.rewording import counted, reworded
from pleinair.tools.pocket.catalogue.language.lexicon import CHANGES, MARKS, Item, begins, scan, words_of
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.language.reading import check_question, complete, read
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood

_JOINTS = (*MARKS, "and", "then", "but", "also")
_PRONOUNS = frozenset(("it", "him", "her", "them", "they"))
_OTHER_ONES = ("a different one", "a different", "another one", "another", "take another one")
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
    check_question(text)
    words, before = reworded(words_of(text)), complete(before)
    for_caller = _for_caller(words, before)
    if for_caller is not None:
        return for_caller
    if _is_new(words, before):
        reading = read(text)
        return Change(reading.request, True, omitted=reading.omitted, corrected=reading.corrected)
    request = before
    clauses = [clause for clause in _clauses(with_names(words, before)) if clause]
    changes = [clause for clause in clauses if not _leaves(clause)] if len(clauses) > 1 else clauses
    for clause in changes:
        if _removes_again(clause, request, before):
            continue
        is_after = len(request.mentions) < len(before.mentions)  # "remove the dog, add a car instead"
        request = apply([word for word in clause if word != "instead"] if is_after else clause, request)
    request = _united(request)
    check_counts(request.mentions, text)
    if request == before and not has_setting(words):
        raise NotUnderstood("change", " ".join(text.split()), names_of(before))
    items, corrections = scan(text)
    narrowed = {item.text: item.word.value for item in items if item.word.wider}
    omitted = tuple(item.text for item in items if item.role == "harmless")
    return Change(request, omitted=omitted, corrected=corrections | narrowed)


def _united(request: Request) -> Request:
    """Return two subjects that are the same and side by side as one, of which there are as many."""
    mentions = request.mentions
    for number, other in combinations(range(len(mentions)), 2):
        count = mentions[number].count + mentions[other].count
        is_same = replace(mentions[number], count=count) == replace(mentions[other], count=count)
        if is_same and count <= 3 and {*request.relations} == {"beside"}:
            both = with_mention(request, number, replace(mentions[number], count=count))
            rest = (*both.mentions[:other], *both.mentions[other + 1 :])
            return _united(replace(both, mentions=rest, relations=request.relations[1:]))
    return request


def _without_politeness(words: Words) -> Words:
    while words and _is_polite(words):
        words = words[max(1, begins(words, CHANGES["polite"])) :]
    while words and (words[-1] in (*MARKS, "please", "thanks", "sorry", "now", "too", "again", "anymore")):
        words = words[:-1]
    begins_twice = words[:1] in (["and"], ["also"]) and operation_of(words[1:])  # "and make it night"
    return words[1:] if begins_twice else words


def _is_polite(words: Words) -> bool:
    """Return whether the first words may be left out; "just the dog" begins with what it means."""
    length, operation = begins(words, CHANGES["polite"]), operation_of(words)
    return words[0] in MARKS or bool(length and (operation is None or operation[1] <= length))


def _for_caller(words: Words, before: Request) -> Change | None:
    """Return what only the caller can do: draw again, take other references, go back."""
    plain = [word for word in words if word not in (*MARKS, "please", "now", "just", "thanks")]
    if joined(plain) in CHANGES["again"]:
        return Change(before, again=True)
    length = begins(plain, CHANGES["other"])
    concepts = _meant(_without_other_one(plain[length:]), before) if length else ()
    if concepts:
        return Change(before, other_reference_of=concepts)
    earlier = _earlier(plain)
    return Change(before, earlier=earlier) if earlier else None


def _without_other_one(words: Words) -> str:
    """Return "dog" of "dog a different one"."""
    text = joined(words)
    return next((text.removesuffix(f" {end}") for end in _OTHER_ONES if text.endswith(f" {end}")), text)


def _earlier(words: Words) -> int:
    """Return the number of the image that "the second was better" means, -1 for "go back", else 0."""
    text = f" {joined(words)} "
    names_things = any(item.role in ("name", "kind", "setting") for item in scan(text)[0])
    if (
        names_things
        or without_step(words)[1]
        or not any(f" {phrase} " in text for phrase in CHANGES["earlier"])
    ):
        return 0
    number = next((at for at, ordinal in enumerate(_ORDINALS, start=1) if ordinal in words), 0)
    return number or (-1 if {"back", "undo", "previous", "last", "before"} & set(words) else 0)


def _meant(text: str, before: Request) -> tuple[str, ...]:
    """Return the names of the subjects that "that hoopoe", "that bird" or "that one" may mean."""
    if text in CHANGES["any"]:
        return tuple(dict.fromkeys(mention.name for mention in before.mentions))
    items = scan(text)[0]
    if any(item.role not in ("name", "kind", "article", "filler", "harmless") for item in items):
        return ()
    named = {item.word.value for item in items if item.role in ("name", "kind")}
    meant = (mention.name for mention in before.mentions if named & {mention.name, kind_of(mention)})
    return tuple(dict.fromkeys(meant))


def _is_new(words: Words, before: Request) -> bool:
    """Return whether words are a prompt of their own: they name things, and no change of those before."""
    core = with_names(counted(_without_politeness(words), before), before)
    items, _ = scan(joined(core))
    roles = [item.role for item in items]
    if not core or operation_of(core) or "instead" in core or without_step(core)[1]:
        return False
    if core[0] == "one" and core[1:2] in (["of"], ["should"]):
        return False
    nouns = [item.word.value for item in items if item.role in ("name", "kind")]
    if not nouns:
        return not set(roles) & {"setting", "size", "colour", "number", "relation", "side"}
    if not _PRONOUNS.isdisjoint(core) or _has_companion(items):
        return False
    return _names_anew(core, items, nouns, before)


def _names_anew(core: Words, items: Sequence[Item], nouns: Sequence[str], before: Request) -> bool:
    """Return whether nouns name things anew, not those that an image has or where something is to stand."""
    numbers = [find(Mention(noun), before.mentions) for noun in nouns]
    stated = [item.role for item in items if item.role not in ("filler", "harmless")]
    articles = zip(_articles_of(items), numbers, strict=True)
    has_before = any(article == "the" and number is not None for article, number in articles)
    if "relation" in stated and (has_before or (stated[0] == "relation" and len(nouns) == 1)):
        return False
    if None in numbers:
        return True
    is_count = [role for role in stated if role != "article"] == ["number", items[-1].role]  # "two dogs"
    if is_count or "more" in core:
        return False
    is_indefinite = any(item.word.value in INDEFINITE for item in _articles(items))
    says_more = {"relation", "side", "colour", "size"} & {*stated}  # "dog on the left"
    return is_indefinite or not (core[0] == "the" or says_more)


def _articles_of(items: Sequence[Item]) -> Iterator[str]:
    """Yield the article before each noun, "" for none."""
    article = ""
    for item in items:
        if item.role == "article":
            article = item.word.value
        elif item.role in ("name", "kind"):
            yield article
            article = ""


def _articles(items: Sequence[Item]) -> Iterator[Item]:
    """Yield the articles of things; that of "in a forest" is none."""
    for at, item in enumerate(items):
        noun = next((other for other in items[at:] if other.role in ("name", "kind", "setting")), None)
        if item.role == "article" and noun is not None and noun.role != "setting":
            yield item


def _has_companion(items: Sequence[Item]) -> bool:
    """Return whether items name a thing after "with" first: "at night, with a dog"."""
    first = next(at for at, item in enumerate(items) if item.role in ("name", "kind"))
    before = {item.role for item in items[:first]}
    return "companion" in before and before.isdisjoint(("joint", "side", "pronoun"))


def _clauses(words: Words) -> Iterator[Words]:
    """Yield the parts of a text that each begin a change or are about the place, the light or the weather."""
    clause: Words = []
    for at, word in enumerate(words):
        operation = operation_of(_without_politeness(clause))
        in_removal = operation is not None and operation[0] == "remove"
        following = _without_politeness(words[at + 1 :])
        begins_clause = _begins_clause(following, in_removal) or (
            _is_statement(clause) and _is_statement([*takewhile(lambda word: word not in _JOINTS, following)])
        )
        if word in _JOINTS and clause and begins_clause:
            yield _without_politeness(clause)
            clause = []
        elif word not in MARKS or clause:
            clause.append(word)
    yield _without_politeness(clause)


def _removes_again(words: Words, request: Request, before: Request) -> bool:
    """Return whether words remove what a clause before removed: "only the dog, remove the car"."""
    operation = operation_of(words)
    named = [Mention(item.word.value) for item in scan(joined(words))[0] if item.role in ("name", "kind")]
    was_there = all(find(mention, before.mentions) is not None for mention in named)
    is_there = any(find(mention, request.mentions) is not None for mention in named)
    return operation is not None and operation[0] == "remove" and bool(named) and was_there and not is_there


def _leaves(words: Words) -> bool:
    """Return whether words leave things as they are: "keep the dog", "somewhere else"."""
    keeps = words[0] in ("keep", "leave")
    roles = {item.role for item in scan(joined(words[keeps:]))[0]}
    return roles <= {"article", "name", "kind", "joint", "filler"} if keeps else roles == {"filler"}


def _is_statement(words: Words) -> bool:
    """Return whether words say a colour or a size of a thing that they name before: "the dog bigger"."""
    roles = [item.role for item in scan(joined(words))[0]]
    is_said = roles[-1:] in (["colour"], ["size"]) or bool(without_step(words)[1])
    return bool({"name", "kind"} & {*roles}) and is_said and roles[-1] not in ("name", "kind")


def _begins_clause(words: Words, in_removal: bool) -> bool:
    """Return whether words begin a clause; in "without the rain and the fog" the fog does not."""
    operation = operation_of(words)
    if operation and operation[0] != "add":
        return True
    if (
        words[:1] in (["add"], ["put"])
        or words[1:2] == ["more"]
        or words[:2] in (["one", "of"], ["two", "of"], ["the", "other"])
    ):
        return True
    roles = [item.role for item in scan(joined(words[:6]))[0]]
    if in_removal and roles[:1] != ["inside"]:
        return False
    while roles and roles[0] in ("inside", "relation", "article", "filler", "harmless", "size"):
        roles = roles[1:]
    return roles[:1] == ["setting"]
