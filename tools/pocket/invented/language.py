"""Language of the world of invented names: the grammar of `prompts`, and changes of what was drawn before.

In a chat only another place ("now make it night"), another reference ("not that bird") and once more
("again") are understood. Not covered: changing a subject or a relation, and questions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from pleinair.tools.pocket.invented.prompts import (
    HINT,
    PLACES,
    Request,
    normalized,
    parse_prompt,
    with_article,
    write_prompt,
)
from pleinair.tools.pocket.invented.world import KIND_OF_NOUN, SPECIES
from pleinair.tools.pocket.language import Change, OutsideWorld, Wording
from pleinair.tools.types import Concept

OPENINGS = ("a photo of", "a picture of", "an image of")
_CHANGE = re.compile(
    r"^(?:now |and |then |but |please )*(?P<it>(?:make|draw|paint|put) it |the same )?"
    r"(?P<place>[a-z ]+?)(?:,? (?:now|instead|please))*[.!]*$"
)
_NOT_THAT = re.compile(r"\bnot (?:that|this|the) (?P<what>[a-z' -]+?)(?:,? (?:again|please))*[.!]*$")
_AGAIN = re.compile(r"^(?:once more|again|try again|another one|draw it again)[.!]*$")
_ANY = {"one", "picture", "reference", "image", "photo"}
_CHANGEABLE = (
    'of what was drawn only the place can be changed, such as "now make it night", and the references, '
    'such as "not that bird"; for other subjects say all that is to be seen, such as "a telma wren beside '
    'a velmora finch"'
)


class InventedLanguage:
    """The world's implementation of `Language`."""

    abilities = (
        "I am a rule-based miniature: I read prompts such as 'a photo of a velmora finch beside a telma wren "
        "on snow' (one or two subjects of the miniature world, a relation, a place)"
    )
    names: Sequence[str] = tuple(species.name for species in SPECIES)

    def wording(self, prompt: str) -> Wording:
        """Return a prompt in the grammar's letters, without polite words; others stay as they are."""
        return Wording(normalized(prompt))

    def concepts(self, prompt: str) -> list[Concept]:
        """Return the subjects, each once."""
        return [_concept(name) for name in dict.fromkeys(_parsed(prompt).subjects)]

    def answer(self, line: str) -> str:
        """Return "": questions are not covered."""
        return ""

    def captions(self, concept: str, count: int) -> list[str]:
        """Return a caption for each of the grammar's openings, up to `count`."""
        return [f"{opening} {with_article(concept)}" for opening in OPENINGS[:count]]

    def caption(self, names: Sequence[str]) -> str:
        """Return a caption of subjects beside each other."""
        return f"{OPENINGS[0]} {' beside '.join(map(with_article, names))}"

    def rephrase(self, prompt: str) -> str:
        """Return one of the grammar's wordings."""
        return write_prompt(random.Random(prompt), _parsed(prompt))

    def change(self, line: str, before: str) -> Change:
        """Return the complete prompt that a line means, and the subjects that get other references."""
        line = normalized(line)
        text = " ".join(line.split())
        match = _CHANGE.match(text)
        place = _place_of(match["place"]) if match else ""
        veto = _NOT_THAT.search(text)
        if not (veto or place or _AGAIN.match(text) or (match and match["it"])):
            return Change(_complete_prompt(line, bool(before)))
        if not before:
            raise _outside(f"nothing was drawn before that {text!r} could change")
        if place:
            return Change(_move(before, place))
        if match and match["it"]:
            raise _outside(_CHANGEABLE)
        return Change(before, veto["what"], _meant(veto["what"], before)) if veto else Change(before)


def _outside(reason: str, remedy: str = "") -> OutsideWorld:
    return OutsideWorld(f"I cannot read this prompt: {reason}", remedy)


def _parsed(prompt: str) -> Request:
    try:
        return parse_prompt(prompt)
    except ValueError as error:
        raise _outside(str(error).removesuffix(HINT), f"{HINT[2:].capitalize()}.") from error


def _concept(name: str) -> Concept:
    return Concept(name=name, caption=f"{OPENINGS[0]} {with_article(name)}")


def _complete_prompt(prompt: str, in_chat: bool) -> str:
    """Check that a prompt is complete; in a chat, refuse a subject that may be a change instead.

    There an unknown noun needs its "a", since "bigger" and "the sky darker" would change what was generated.
    """
    try:
        subjects = _parsed(prompt).subjects
    except OutsideWorld as error:
        raise OutsideWorld(f"{error}; {_CHANGEABLE}") if in_chat else error from error
    text = " ".join(prompt.lower().split())
    bare = [subject for subject in subjects if not re.search(rf"\ban? {re.escape(subject)}", text)]
    unknown = [subject for subject in bare if subject.split()[-1] not in KIND_OF_NOUN]
    if in_chat and unknown:
        raise _outside(f"{unknown[0]!r} is no subject that I know; {_CHANGEABLE}")
    return prompt


def _meant(what: str, prompt: str) -> tuple[str, ...]:
    """Return the subjects of a prompt that "that bird" or "that one" may mean."""
    return tuple(name for name in dict.fromkeys(_parsed(prompt).subjects) if _refers_to(what, name))


def _refers_to(what: str, subject: str) -> bool:
    words = subject.split()
    return what in (*_ANY, subject, *words, KIND_OF_NOUN.get(words[-1]))


def _place_of(words: str) -> str:
    """Return the grammar's wording of a place, "" if the words are none."""
    return next((wordings[0] for kind, wordings in PLACES.items() if words in (kind, *wordings)), "")


def _move(prompt: str, place: str) -> str:
    """Rewrite a prompt with another place."""
    request = _parsed(prompt)
    relation = f" {request.relation or 'beside'} "
    return f"{relation.join(map(with_article, request.subjects))} {place}"
