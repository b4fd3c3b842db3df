"""Grammar of the miniature world: prompts and captions are written and parsed by it.

A prompt is an opening, one subject or two with a relation, and a place. A subject ends at its noun if that is
one of the world's; unknown words belong to it as far as they go. Not covered: three subjects, counts, verbs,
colours that are not part of a description.
"""

import random
import re
from dataclasses import dataclass

from pleinair.tools.pocket.invented.world import KIND_OF_NOUN, Scene, Species

RELATIONS = ("beside", "left of", "above")
OPENINGS = ("", "", "a photo of ", "a picture of ", "an image of ", "draw ", "paint ")
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "beside": ("beside", "next to", "and"),
    "left of": ("left of", "to the left of"),
    "above": ("above", "over"),
}
PLACES: dict[str, tuple[str, ...]] = {
    "sky": ("in the sky", "under a clear sky"),
    "snow": ("in the snow", "on snow"),
    "night": ("at night", "under the stars"),
    "meadow": ("in a meadow", "on the grass"),
    "desert": ("in the desert", "on sand"),
    "sea": ("by the sea", "near water"),
}
PARTS = {
    "bird": "wings",
    "car": "roof",
    "flower": "heart",
    "fish": "fins",
    "mushroom": "stem",
    "balloon": "crown",
}
PLURAL = frozenset({"wings", "fins"})
FUNCTION_WORDS = frozenset(
    "a an the of in on at by with and or to under over near next is are riding behind".split()
)
COUNTS = frozenset(
    "no two three four five six seven eight nine ten eleven twelve "
    "some several many more few both another".split()
)
PLURALS = frozenset(f"{noun}s" for noun in KIND_OF_NOUN) | frozenset(
    "finches lilies daisies guppies fishes".split()
)
WORD_LIMIT = 4

_OPENING = re.compile(
    r"^(?:please )?(?:(?:draw|paint|show|make|generate|create)(?: me)? )?"
    r"(?:an? (?:photo|picture|image|drawing|painting) of )?"
)
_POLITE_OPENING = re.compile(
    r"^\s*(?:(?:hi|hello|hey)[,!]? )?(?:(?:could|can|would) you (?:please )?(?:draw|paint|show|make) (?:me )?"
    r"|please (?:draw|paint|show|make)? ?(?:me )?|(?:draw|paint|show|make) me )(?=(?:an?|the) )"
)
_POLITE_END = re.compile(r"(?:,? (?:please|thanks|thank you)(?: a lot| very much| so much)?)+[.!?]*\s*$")
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_RELATION = {words: relation for relation, all_words in RELATION_WORDS.items() for words in all_words}
_PLACE = {words: background for background, all_words in PLACES.items() for words in all_words}
_SPLIT = re.compile(r" (" + "|".join(sorted(_RELATION, key=len, reverse=True)) + r") (?=(?:an?|the) )")
HINT = (
    f"; write for example 'a velmora finch', two of them joined by {', '.join(_RELATION)}, "
    f"then a place such as {', '.join(words[0] for words in PLACES.values())}"
)


@dataclass(frozen=True, slots=True)
class Request:
    """Parsed prompt: one or two noun phrases, their relation, the background."""

    subjects: tuple[str, ...]
    relation: str | None
    background: str | None


def with_article(phrase: str) -> str:
    """Return the phrase with 'a' or 'an' before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def write_prompt(rng: random.Random, request: Request) -> str:
    """Return one of the grammar's wordings of the request, the inverse of `parse_prompt`."""
    text = rng.choice(OPENINGS) + with_article(request.subjects[0])
    if len(request.subjects) > 1:
        words = rng.choice(RELATION_WORDS[request.relation or "beside"])
        text += f" {words} {with_article(request.subjects[1])}"
    if request.background is not None:
        text += " " + rng.choice(PLACES[request.background])
    return text


def parse_prompt(text: str) -> Request:
    """Return the request of a prompt, lower-cased; unknown names stay as they are.

    Raises:
        ValueError: the text is outside the grammar; the message gives the reason.
    """
    rest = re.sub(r"\s+", " ", text.strip().lower()).rstrip(".!")
    rest = rest[_OPENING.match(rest).end() :]  # type: ignore[union-attr]
    rest, background = _cut_place(rest)
    pieces = _SPLIT.split(rest)
    if len(pieces) > 3:
        raise ValueError(f"at most two subjects are understood, not {len(pieces) // 2 + 1}: {text!r}")
    relation = _RELATION[pieces[1]] if len(pieces) == 3 else None
    return Request(tuple(_subject(piece, text) for piece in pieces[::2]), relation, background)


def normalized(text: str) -> str:
    """Return a prompt in the grammar's letters, without polite words; its meaning stays the same."""
    return _POLITE_END.sub("", _POLITE_OPENING.sub("", text.lower())) if text.strip() else text


def _cut_place(text: str) -> tuple[str, str | None]:
    for words, background in _PLACE.items():
        if text.endswith(" " + words):
            return text[: -len(words)].strip(" ,"), background
    return text, None


def _subject(phrase: str, text: str) -> str:
    words = re.sub(r"^(?:an?|the) ", "", phrase.strip(" ,")).split()
    if not words:
        raise ValueError(f"no subject found in {text!r}")
    fault = _fault(words)
    if fault is not None:
        raise ValueError(f"cannot read {phrase.strip()!r} as a subject{fault}{HINT}")
    return " ".join(words)


def _fault(words: list[str]) -> str | None:
    """Return why words are no subject, "" if there is no specific reason, None if they are one."""
    if len(words) > WORD_LIMIT or FUNCTION_WORDS.intersection(words) or not all(map(_WORD.fullmatch, words)):
        return ""
    if count := next((word for word in words if word in COUNTS or word in PLURALS), None):
        return f": of each there is one, not {count!r}"
    end = next((at for at, word in enumerate(words) if word in KIND_OF_NOUN), len(words)) + 1
    if end < len(words) and words[-1] not in KIND_OF_NOUN:
        return f": {' '.join(words[end:])!r} after {words[end - 1]!r} is not understood"
    return None


def describe(species: Species) -> str:
    """Return what the species looks like, without its name: 'striped teal bird with violet wings'."""
    part = PARTS[species.kind]
    look = f"{species.accent} {part}" if part in PLURAL else with_article(f"{species.accent} {part}")
    pattern = "" if species.pattern == "plain" else f"{species.pattern} "
    return f"{pattern}{species.body} {species.kind} with {look}"


def relation_of(scene: Scene) -> str | None:
    """Return the relation of the first subject to the second, 'above' or 'left of'; None for one subject."""
    if len(scene.subjects) < 2:
        return None
    first, second = scene.subjects
    return "above" if second.y - first.y > 0.25 else "left of"


def request_for(scene: Scene) -> Request:
    """Return the request that the scene fulfils exactly."""
    return Request(tuple(s.species.name for s in scene.subjects), relation_of(scene), scene.background)


def caption(rng: random.Random, scene: Scene, *, by_name: bool) -> str:
    """Return a caption of the scene, with the species' names or with their descriptions.

    Two subjects side by side get either of the two relations that look so.
    """
    subjects = tuple(s.species.name if by_name else describe(s.species) for s in scene.subjects)
    relation = relation_of(scene)
    if relation == "left of":
        relation = rng.choice(("beside", "left of"))
    return write_prompt(rng, Request(subjects, relation, scene.background))
