"""Phrases of a prompt: its subjects, the relations between them, and its place, light and weather.

Items are read from left to right. Words before a noun are held until the noun comes; what has no noun after
it ("flamingos, two of them") belongs to the subject before it. A preposition and what stands before a place,
a light or a weather belongs to that. Words that are neither understood nor harmless are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal

from pleinair.tools.pocket.catalogue.language.descriptions import (
    contradicts,
    count_of,
    described,
    has_colour,
    has_copy,
    is_another,
    is_unfinished,
    superfluous,
)
from pleinair.tools.pocket.catalogue.language.lexicon import (
    PERSONS,
    TRANSITIVE,
    Item,
    Word,
    ending_with,
    names_like,
)
from pleinair.tools.pocket.catalogue.language.prompts import Mention
from pleinair.tools.pocket.catalogue.language.refusals import Kind, NotUnderstood
from pleinair.tools.pocket.catalogue.language.settings import settle
from pleinair.tools.pocket.catalogue.species import BY_NAME

_BEFORE_NOUN = ("article", "number", "size", "colour", "harmless", "filler", "all")
_BEFORE_LISTED = (*_BEFORE_NOUN, "comma", "joint")
_NOUNS = ("name", "kind", "neighbour", "unknown")
_WITH_OBJECT = ("actions", "clothes", "comparisons", "choices", "")  # of what is not shown, and negations
_PURPOSES = ("for", "for my")
_NAMINGS = ("named", "called", "by name")
PhraseRole = Literal["subject", "relation", "side", "pronoun", "break"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Part of a prompt; `value` is the relation, the side or the separator."""

    role: PhraseRole
    value: str = ""
    mention: Mention | None = None
    article: str = ""  # of a subject; "the dog" may be the one that was mentioned before


@dataclass(slots=True)
class Phrases:
    """Phrases of a text, the request's other fields, and what was left out or read as a narrower name."""

    parts: list[Phrase] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    omitted: list[str] = field(default_factory=list)
    narrowed: dict[str, str] = field(default_factory=dict)


def read_phrases(items: Sequence[Item], subjects: Sequence[Mention] = ()) -> Phrases:
    """Return the phrases of scanned items; raise NotUnderstood for what the world cannot draw.

    `subjects` are those that an image has already: they come first, and "two of them" changes the last.
    """
    return _Reader(items, subjects).read()


class _Reader:
    def __init__(self, items: Sequence[Item], subjects: Sequence[Mention] = ()) -> None:
        self.items = items
        self.result = Phrases([Phrase("subject", mention=subject, article="the") for subject in subjects])
        self.before: list[Item] = []  # words before a noun that has not come yet
        self.elliptic: list[list[Item]] = []  # words before a noun that comes later: "a red and a blue car"
        self.names = {subject.name for subject in subjects}
        self.before_text = len(subjects)  # subjects that the image has already
        self.bare: list[Phrase] = []  # subjects in the plural without a number
        self.rest: Phrase | None = None  # what is left of several after "one of them red"
        self.at = 0

    def read(self) -> Phrases:
        while self.at < len(self.items):
            item = self.items[self.at]
            self.at += 1
            self._read_item(item)
        self._close()
        self._count_bare()
        return self.result

    def _count_bare(self) -> None:
        """Read plurals without a number as one each in a list of three: "apples, pears and plums"."""
        if sum(part.role == "subject" for part in self.result.parts) > 2:
            self.result.parts = [
                replace(part, mention=replace(part.mention, count=1))
                if part.mention and any(part is bare for bare in self.bare)
                else part
                for part in self.result.parts
            ]

    def _read_item(self, item: Item) -> None:
        match item.role:
            case "article" | "number" | "size" | "colour" | "copy" | "all":
                self.before.append(item)
            case "name" | "kind":
                self._read_noun(item)
            case "setting":
                self._read_setting(item)
            case "relation" | "inside" | "companion":
                self._read_preposition(item)
            case "harmless" | "filler":
                self._leave_out(item)
            case "group":
                self.before.clear()
            case "neighbour" | "unknown" | "not shown" | "negation":
                self._read_stranger(item)
            case _:
                self._read_mark(item)

    def _read_mark(self, item: Item) -> None:
        """Read a separator, a side or a pronoun; a pronoun counts after a relation only."""
        parts = self.result.parts
        if item.role in ("comma", "joint") and self._is_elliptic():
            self.elliptic.append(self.before)
            self.before = []
            return
        if item.role == "comma" and self._is_before_adjective():
            return
        if item.role in ("comma", "colon", "joint"):
            self._close()
            parts.append(Phrase("break", item.word.value or item.role))
        elif item.role == "side" and self._next_role() != "relation":  # "right behind"
            self._close()
            parts.append(Phrase("side", item.word.value))
        elif item.role == "pronoun" and parts and parts[-1].role == "relation" and not self.before:
            parts.append(Phrase("pronoun", item.word.value))

    def _leave_out(self, item: Item) -> None:
        """Leave out a word, for whom an image is, or a subject's own name: "for my dad", "named Rex"."""
        said: Sequence[Item] = ()
        self._refuse_shown(item)
        if item.word.value in _NAMINGS and self._next_role() == "unknown":
            said = self.items[self.at : self.at + 1]
        elif item.word.value in _PURPOSES:
            said = self._purpose()
        if said or item.role == "harmless":
            self.result.omitted.append(" ".join(part.text for part in (item, *said)))
            self.at += len(said)

    def _refuse_shown(self, item: Item) -> None:
        """Raise for a person that is to be seen ("a child"), and a pose with an object: "driving a car"."""
        articles = {part.word.value for part in self.before if part.role in ("article", "number")}
        is_person = item.word.value in PERSONS and not articles.isdisjoint(
            ("a", "an", "another", "1", "2", "3")
        )
        is_action = item.word.value in TRANSITIVE and self._follows_subject() and self._has_object()
        if is_person or is_action:
            phrase = " ".join([item.text, *self._rest()] if is_action else [item.text])
            raise NotUnderstood("not shown", phrase, self._last_name() or _names_in(self.items))

    def _has_object(self) -> bool:
        noun = self._next_noun()
        return noun < len(self.items) and self.items[noun].role in ("name", "kind")

    def _purpose(self) -> Sequence[Item]:
        """Return the next words if they name people, or after a subject what is not of this world."""
        words = list(takewhile(_may_be_purpose, self.items[self.at :]))
        while words and words[-1].role == "joint":
            words.pop()
        ahead = self.at + len(words)
        is_before_noun = ahead < len(self.items) and self.items[ahead].role in (*_BEFORE_NOUN, *_NOUNS)
        has_subject = any(part.role == "subject" for part in self.result.parts)
        roles = {part.role for part in words}
        states = "not shown" in roles or ("unknown" in roles and has_subject)
        return words if states and not is_before_noun else ()

    def _is_before_adjective(self) -> bool:
        """Return whether a comma stands between adjectives: "a small, blue fish"."""
        return any(part.role == "article" for part in self.before) and not has_copy(self.before)

    def _is_elliptic(self) -> bool:
        """Return whether words have their noun later: "a red and a blue car", "red and blue cars"."""
        roles, next_role = {part.role for part in self.before}, self._next_role()
        noun = next((part for part in self.items[self.at :] if part.role not in _BEFORE_LISTED), None)
        if noun is None or noun.role not in ("name", "kind") or has_copy(self.before):
            return False
        if roles & {"article", "number"}:
            return bool(roles & {"size", "colour"}) and next_role in ("article", "number")
        return bool(roles & {"size", "colour"} & {next_role}) and noun.word.plural

    def _next_role(self) -> str:
        return self.items[self.at].role if self.at < len(self.items) else ""

    def _next_noun(self) -> int:
        """Return the index of the next item that does not stand before a noun."""
        ahead = (at for at in range(self.at, len(self.items)) if self.items[at].role not in _BEFORE_NOUN)
        return next(ahead, len(self.items))

    def _follows_subject(self) -> bool:
        return bool(self.result.parts) and self.result.parts[-1].role == "subject"

    def _is_pose(self, item: Item) -> bool:
        """Return whether an unknown word is a verb with no object: "strutting", not "nibbling an apple"."""
        is_before_noun = self._next_role() in (*_NOUNS, "article", "number", "size", "colour")
        place = is_before_noun if self.before else not is_before_noun and self._follows_subject()
        return item.text.lower().endswith("ing") and place

    def _read_preposition(self, item: Item) -> None:
        self._close()
        ahead = self._next_noun()
        if _is_sky_coloured(self.items[ahead : ahead + 2]):
            ahead += 1
        noun = self.items[ahead] if ahead < len(self.items) else None
        if noun is not None and noun.role == "setting":
            self.at = ahead
        elif item.role == "relation":
            self.result.parts.append(Phrase("relation", item.word.value))
        elif item.role == "companion":
            self.result.parts.append(Phrase("break", "with"))
        elif noun is not None and self._is_inside(noun, ahead):
            phrase = " ".join(part.text for part in (item, *self.items[self.at : ahead + 1]))
            raise NotUnderstood("not shown", phrase, _names_in([noun]) or self._last_name())

    def _is_inside(self, noun: Item, at: int) -> bool:
        """Return whether something is in a subject: "in a car", "a car with a dog in it"."""
        subjects = sum(part.role == "subject" for part in self.result.parts)
        is_subject = noun.role in ("name", "kind") and not self._is_colour(noun, at)
        return is_subject or (noun.role == "pronoun" and at == self.at and subjects > 1)

    def _read_setting(self, item: Item) -> None:
        """Set fields of the request; words before it were about it, except before an adjective: "foggy"."""
        if self._next_role() not in ("size", "colour", "name", "kind"):
            self.before = []
        for name, value in item.word.fields:
            self.result.fields[name] = settle(name, value, self.result.fields)

    def _is_colour(self, item: Item, at: int) -> bool:
        """Return whether a name such as "orange" is the colour of the noun after it, or before it."""
        after = next((other for other in self.items[at + 1 :] if other.role != "harmless"), None)
        if self._is_placed(at) or (item.word.value in self.names and (after is None or after.role != "kind")):
            return False
        if item.word.colour and not item.word.plural and not self.before and self._follows_subject():
            return True
        if _is_sky_coloured(self.items[at : at + 2]):
            return True
        if not item.word.colour or after is None or after.role not in ("name", "kind", "size", "colour"):
            return False
        if after.role == "name":
            return not item.word.plural
        own_kind = BY_NAME[item.word.value].kind == after.word.value
        return not own_kind or item.word.colour == item.word.value

    def _is_placed(self, at: int) -> bool:
        """Return whether a relation to a thing follows: "plum on the dog", not "orange on a beach"."""
        following = self.items[at + 1 :]
        noun = next((item for item in following[1:] if item.role not in _BEFORE_NOUN), None)
        return bool(following and following[0].role == "relation" and noun and noun.role in ("name", "kind"))

    def _read_noun(self, item: Item) -> None:
        if self._is_colour(item, self.at - 1):
            self.before.append(Item(Word("colour", item.word.colour), item.text))
            return
        name = self._narrowed(item)
        kind = BY_NAME[name].kind if name in BY_NAME else name
        if self._next_role() == "kind" and self.items[self.at].word.value == kind:  # "a beagle dog"
            item = Item(replace(item.word, plural=self.items[self.at].word.plural), item.text)
            self.at += 1
        if item.word.wider:
            self.result.narrowed[item.text] = name
        article = next((part.word.value for part in self.before if part.role == "article"), "")
        in_plural = item.word.plural and not self.elliptic
        self._read_elliptic(name)
        mention = self._mention(name, self._count(name, in_plural), self.before)
        self.result.parts.append(Phrase("subject", mention=mention, article=article))
        if in_plural and not any(part.role == "number" for part in self.before):
            self.bare.append(self.result.parts[-1])
        self.before = []

    def _narrowed(self, item: Item) -> str:
        """Return the name of a noun; of a wider one a species that has the stated colour: "yellow bus"."""
        name = item.word.value
        colours = {part.word.value for part in self.before if part.role == "colour"}
        if not item.word.wider or len(colours) != 1 or has_colour(name, *colours):
            return name
        return next((other for other in ending_with(item.text) if has_colour(other, *colours)), name)

    def _read_elliptic(self, name: str) -> None:
        """Add the subjects whose words were before the noun: "a red" of "a red and a blue car"."""
        for words in self.elliptic:
            mention = self._mention(name, count_of(words, name, 1), words)
            self.result.parts += [Phrase("subject", mention=mention), Phrase("break", "and")]
        self.elliptic = []

    def _count(self, name: str, in_plural: bool) -> int:
        articles = {part.word.value for part in self.before if part.role == "article"}
        is_bare = in_plural and not articles & {"a", "an"}
        return count_of(self.before, name, 2 if is_bare else 1)

    def _mention(self, name: str, count: int, words: Sequence[Item], base: Mention | None = None) -> Mention:
        self.result.omitted += superfluous(name, words)
        return described(name, count, words, base)

    def _close(self) -> None:
        """End a phrase: words without a noun say more of the subject before them, or name one like it."""
        words, self.before = self.before, []
        parts = self.result.parts
        subjects = [at for at, part in enumerate(parts) if part.role == "subject"]
        if all(part.role in ("article", "all") for part in words):
            return
        if not subjects:
            self.before = [part for part in words if part.role != "copy"]
            return
        if is_unfinished(words):
            raise NotUnderstood("unknown name", " ".join(part.text for part in words))
        base = parts[subjects[-1]].mention
        assert base is not None
        is_joined = parts[-1].role == "relation" or parts[-1].value in ("and", "with")
        is_rest = parts[subjects[-1]] is self.rest
        if is_another(words) and not is_rest and (is_joined or contradicts(words, base)):
            mention = self._mention(base.name, count_of(words, base.name, 1), words)
            parts.append(Phrase("subject", mention=mention))
            return
        is_of_all = any(part.role == "all" for part in words)
        is_new = subjects[-1] >= self.before_text
        if is_new and not is_of_all and len(words) > 1 and 0 < count_of(words, base.name, 0) < base.count:
            self._say_of_some(subjects[-1], words)
            return
        for at in subjects if is_of_all else subjects[-1:]:
            self._say_more(at, words)

    def _say_of_some(self, at: int, words: Sequence[Item]) -> None:
        """Divide a subject by words after it; "two of them red" of three cars leaves another one."""
        parts, base = self.result.parts, self._said_of(at, words)
        count = count_of(words, base.name, 0)
        some = Phrase("subject", mention=self._mention(base.name, count, words, base))
        self.rest = replace(parts[at], mention=replace(base, count=base.count - count))
        parts[at : at + 1] = [some, Phrase("break", "comma"), self.rest]

    def _say_more(self, at: int, words: Sequence[Item]) -> None:
        """Change a subject by words after it; of "two cars, one behind the other" there is no such change."""
        base = self._said_of(at, words)
        is_bare = any(self.result.parts[at] is bare for bare in self.bare)
        if at >= self.before_text and not is_bare and count_of(words, base.name, base.count) < base.count:
            raise NotUnderstood("relations", f"{words[0].text} of {base.count} {base.name}", (base.name,))
        mention = self._mention(base.name, count_of(words, base.name, base.count), words, base)
        self.result.parts[at] = replace(self.result.parts[at], mention=mention)

    def _said_of(self, at: int, words: Sequence[Item]) -> Mention:
        """Return the subject of words after it; raise NotUnderstood if they give it a second colour."""
        base = self.result.parts[at].mention
        assert base is not None
        colours = {base.colour, *(part.word.value for part in words if part.role == "colour")} - {""}
        if not self.before_text and len(colours) > 1:  # "make the red car yellow" is a change
            raise NotUnderstood("colour", " and ".join(sorted(colours)))
        return base

    def _read_stranger(self, item: Item) -> None:
        """Raise for words that are not of this world, and the noun after them; leave out poses."""
        if item.role == "unknown" and self._is_pose(item):
            self.result.omitted.append(item.text)
            return
        if item.role in ("neighbour", "unknown"):
            words = [item, *self._nouns()]
            raise NotUnderstood("unknown name", " ".join(part.text for part in words), names_like(words))
        phrase = " ".join([item.text, *self._rest()] if item.word.value in _WITH_OBJECT else [item.text])
        kind: Kind = "not shown" if item.role == "not shown" else "negation"
        raise NotUnderstood(kind, phrase, self._last_name() or _names_in(self.items))

    def _last_name(self) -> tuple[str, ...]:
        return tuple(part.mention.name for part in self.result.parts if part.mention)[-1:]

    def _nouns(self) -> list[Item]:
        """Return the nouns that come next, up to one of the world."""
        nouns = []
        for item in self.items[self.at :]:
            if item.role not in _NOUNS:
                break
            nouns.append(item)
            if item.role in ("name", "kind"):
                break
        return nouns

    def _rest(self) -> list[str]:
        """Return what the next words say of a word that is not shown: "a raincoat" after "wearing"."""
        roles = (*_BEFORE_NOUN, *_NOUNS, "not shown")
        return [item.text for item in takewhile(lambda item: item.role in roles, self.items[self.at :])]


def _names_in(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.word.value for item in items if item.role in ("name", "kind")))[:3]


def _is_sky_coloured(items: Sequence[Item]) -> bool:
    """Return whether items are a name that is a colour, and a light or the sky: "orange sky"."""
    return len(items) == 2 and bool(items[0].word.colour) and _is_lit(items[1])


def _is_lit(item: Item) -> bool:
    """Return whether a word is a light or the sky, which may have a colour in a prompt."""
    return item.role == "setting" and (item.word.value == "sky" or item.word.fields[0][0] == "light")


def _may_be_purpose(item: Item) -> bool:
    """Return whether a word may belong to those that say for whom an image is: "my mum and dad"."""
    is_person = item.role == "not shown" and item.word.value == "people"
    return is_person or item.role in ("article", "unknown", "filler", "harmless", "joint")
