"""Order of the subjects of a prompt, by the relations between them.

Parts are read from left to right. A relation is between the subject before it and the one after. Without one
before it ("behind the taxi there is a robin"), or with a pronoun after it ("behind it, a robin"), it is of
the next subject. The related two come first, a third subject is beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pleinair.tools.pocket.catalogue.language.phrases import Phrase
from pleinair.tools.pocket.catalogue.language.prompts import Mention
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood
from pleinair.tools.pocket.catalogue.species import BY_NAME

CONVERSE: Mapping[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "under",
    "on": "under",
    "under": "above",
    "in front of": "behind",
    "behind": "in front of",
    "beside": "beside",
}
_SIDES = ("left", "middle", "right")
_Link = tuple[int, str, int]  # a subject, how it stands to another, that other


class Arrangement:
    """Subjects of a text in order, after those that an image has already, and the links between them."""

    def __init__(self, parts: Sequence[Phrase], subjects: Sequence[Mention] = (), relation: str = "") -> None:
        self.parts = parts
        self.subjects = list(subjects)
        self.joints = [""] * len(subjects)  # what stands before each subject
        self.last = len(subjects) - 1  # subject that was mentioned last
        self.links: list[_Link] = [(0, relation, 1)] if relation else []
        self.positions: dict[int, str] = {}  # relations without an object: "a dog on top"
        self.sides: dict[int, str] = {}
        self.landmark: tuple[str, int] | None = None  # "behind the taxi", of the next subject
        self.prefix = ""  # "on the left:", of the next subject
        self.middle: int | None = None  # subject between two others

    def arrange(self, text: str) -> tuple[tuple[Mention, ...], tuple[str, ...], tuple[str, ...]]:
        """Return subjects, relations and positions that mean nothing; raise NotUnderstood."""
        at = 0
        while at < len(self.parts):
            at += self._read_part(at)
        check_counts(self.subjects, text)
        unplaced = self._place(text)
        order, relations = self._order(text)
        return tuple(self.subjects[number] for number in order), relations, unplaced

    def _role(self, at: int) -> str:
        return self.parts[at].role if 0 <= at < len(self.parts) else ""

    def _read_part(self, at: int) -> int:
        """Read a part and return by how many parts to go on."""
        part = self.parts[at]
        if part.role == "relation":
            return self._read_relation(at)
        if part.role == "subject":
            self._read_subject(at)
        elif part.role == "side":
            after = next((role for role in map(self._role, range(at + 1, at + 3)) if role != "break"), "")
            if after == "subject" and self._role(at - 1) != "subject":
                self.prefix = part.value
            elif self.subjects:
                self._set_side(self.last, part.value)
        elif part.value == "colon":
            self._drop_heading(at + 1)
        return 1

    def _drop_heading(self, at: int) -> None:
        """Drop a kind that is said of the next subject: "my favourite flower: a rose"."""
        after = self.parts[at].mention if at < len(self.parts) else None
        if self.subjects and after and _is_heading(self.subjects[-1], after):
            del self.subjects[-1], self.joints[-1]
            self.last = len(self.subjects) - 1

    def _read_subject(self, at: int) -> int:
        """Add a subject and return its number; "the dog" is the one that was mentioned before."""
        part = self.parts[at]
        mention = part.mention
        assert mention is not None
        mentioned = find(mention, self.subjects) if part.article == "the" else None
        if mentioned is None and part.article == "the" and mention.colour:  # "a car, the car is red"
            plain = replace(mention, colour="")
            fits = [n for n, s in enumerate(self.subjects) if not s.colour and find(plain, [s]) is not None]
            mentioned = next(reversed(fits), None)
            if mentioned is not None:
                self.subjects[mentioned] = replace(self.subjects[mentioned], colour=mention.colour)
        if mentioned is not None:
            self.last = mentioned
            return mentioned
        if self._role(at - 1) == "subject":
            self._drop_heading(at)
        self.subjects.append(mention)
        self.joints.append(self._joint(at))
        number = self.last = len(self.subjects) - 1
        if self.landmark:
            self.links.append((number, *self.landmark))
            self.landmark = None
        if self.prefix:
            self._set_side(number, self.prefix)
            self.prefix = ""
        return number

    def _set_side(self, number: int, side: str) -> None:
        (self.sides if side in _SIDES else self.positions)[number] = side

    def _joint(self, at: int) -> str:
        """Return the word before a subject; "" after a comma, also before "and"."""
        is_joined = self._role(at - 1) == "break" and self._role(at - 2) == "subject"
        return self.parts[at - 1].value if is_joined else ""

    def _read_relation(self, at: int) -> int:
        relation, after = self.parts[at].value, self._role(at + 1)
        last = self.last
        follows = self._role(at - 1) in ("subject", "pronoun")
        if after == "relation":
            return 1
        if relation == "between":
            self.middle = 2 if last < 0 else last
            return 1
        if after == "pronoun":
            self._relate_to_pronoun(
                relation, last, is_trailing=follows, is_last=not self._has_subject(at + 2)
            )
            return 2
        if after != "subject":
            self._set_position(relation, last)
            return 1
        other = self._read_subject(at + 1)
        if last < 0 or (not follows and self._role(at + 2) == "subject"):
            self.landmark = (relation, other)
        else:
            self._link(last, relation, other)
        return 2

    def _has_subject(self, at: int) -> bool:
        return any(part.role == "subject" for part in self.parts[at:])

    def _relate_to_pronoun(self, relation: str, last: int, *, is_trailing: bool, is_last: bool) -> None:
        """Read "a robin behind it" of the subject before, "behind it, a robin" of the next one."""
        if last > 1 and relation != "beside" and is_trailing:  # "a taxi with a pug and a corgi behind it"
            raise self._not_related(f"{self.subjects[last].name} {relation} it")
        if last > 0 and (is_trailing or is_last):
            self._link(last, relation, last - 1)
        elif last >= 0 and not is_last:
            self.landmark = (relation, last)

    def _set_position(self, relation: str, last: int) -> None:
        """Read a relation without an object: "a dog on top", "above: a robin"."""
        if last < 0:
            self.prefix = relation
        elif relation != "beside":
            self.positions[last] = relation

    def _link(self, first: int, relation: str, second: int) -> None:
        """Add a link, unless it might be of two subjects at once: "a robin and a crow on a taxi"."""
        linked = {number for link in self.links for number in (link[0], link[2])}
        if (
            relation != "beside"
            and first > 0
            and self.joints[first] == "and"
            and second > first
            and first - 1 not in linked
        ):
            names = [subject.name for subject in self.subjects[first - 1 : first + 1]]
            raise NotUnderstood(
                "relations", f"{' and '.join(names)} {relation} {self.subjects[second].name}", tuple(names)
            )
        self.links.append((first, relation, second))

    def _place(self, text: str) -> tuple[str, ...]:
        """Make links of positions and of the sides of two subjects; return those of a single subject."""
        if len(self.subjects) == 1:
            if not {"behind", "in front of"}.issuperset(self.positions.values()):
                raise self._not_related(text)
            return (*self.positions.values(), *self.sides.values())
        for number, relation in self.positions.items():
            self.links.append((number, relation, number - 1 if number else 1))
        if len(self.subjects) == 2:
            for number, side in self.sides.items():
                if side != "middle":
                    self.links.append((number, f"{side} of", 1 - number))
        return ()

    def _order(self, text: str) -> tuple[Sequence[int], tuple[str, ...]]:
        """Return the order of the subjects, and the relation of each to the one before."""
        count = len(self.subjects)
        links: dict[frozenset[int], _Link] = {}
        for link in self.links:
            before = links.setdefault(frozenset((link[0], link[2])), link)
            if not _agree(before, link):
                raise self._not_related(text)
        spatial = [link for link in links.values() if link[1] != "beside"]
        if not spatial:
            return self._row(), ("beside",) * (count - 1)
        if row := _chain(spatial):
            return row, ("left of", "beside")
        first, relation, second = spatial[0]
        rest = [number for number in range(count) if number not in (first, second)]
        if len(spatial) > 1 or (rest and self.sides):
            raise self._not_related(text)
        return (first, second, *rest), (relation, "beside")[: count - 1]

    def _not_related(self, text: str) -> NotUnderstood:
        return NotUnderstood(
            "relations", " ".join(text.split()), tuple(subject.name for subject in self.subjects)
        )

    def _row(self) -> list[int]:
        """Return the order from left to right."""
        numbers = sorted(
            range(len(self.subjects)), key=lambda number: _SIDES.index(self.sides.get(number, "middle"))
        )
        if self.middle is not None and len(numbers) == 3:
            numbers.remove(self.middle)
            numbers.insert(1, self.middle)
        return numbers


def check_counts(subjects: Sequence[Mention], text: str) -> None:
    """Raise NotUnderstood for no subject, more than three, or three of which there are several."""
    names = tuple(subject.name for subject in subjects)
    if not subjects:
        raise NotUnderstood("no subject", " ".join(text.split()))
    if len(subjects) > 3 or (len(subjects) == 3 and any(subject.count > 1 for subject in subjects)):
        raise NotUnderstood("too many subjects", ", ".join(map(_counted, subjects)), names[:3])


def _chain(links: Sequence[_Link]) -> tuple[int, ...]:
    """Return three subjects in a row: "a pug left of a corgi left of a husky"; () if the links are others."""
    pairs = [
        (a, b) if relation == "left of" else (b, a) for a, relation, b in links if relation.endswith("t of")
    ]
    if len(pairs) != 2 or len(links) != 2:
        return ()
    rows = [(*pair, other[1]) for pair, other in (pairs, pairs[::-1]) if pair[1] == other[0]]
    return next(iter(rows), ())


def find(mention: Mention, subjects: Sequence[Mention]) -> int | None:
    """Return the number of the subject that a name or the name of its kind means.

    Of several it is one that has just this name, and of these the latest that has the mention's size, or the
    latest.
    """
    fits = [
        number
        for number, subject in enumerate(subjects)
        if mention.name in (subject.name, kind_of(subject)) and mention.colour in ("", subject.colour)
    ]
    fits = [number for number in fits if subjects[number].name == mention.name] or fits
    sized = [number for number in fits if mention.size and subjects[number].size == mention.size]
    return next(reversed(sized or fits), None)


def kind_of(mention: Mention) -> str:
    """Return the kind of a mention, which may name a kind itself."""
    return BY_NAME[mention.name].kind if mention.name in BY_NAME else mention.name


def _is_heading(mention: Mention, other: Mention) -> bool:
    """Return whether a mention only names the kind of another one: "two birds: a robin and a crow"."""
    return other.name in BY_NAME and replace(mention, count=1) == Mention(BY_NAME[other.name].kind)


def _agree(link: _Link, other: _Link) -> bool:
    """Return whether two links between the same subjects mean the same, or one of them only "beside"."""
    turned = link if link[0] == other[0] else (other[0], CONVERSE[link[1]], other[2])
    return (
        turned[1] == other[1] or "beside" in (link[1], other[1]) or {turned[1], other[1]} == {"above", "on"}
    )


def _counted(mention: Mention) -> str:
    phrase = f"{mention.colour} {mention.name}".strip()
    return phrase if mention.count == 1 else f"{mention.count} × {phrase}"
