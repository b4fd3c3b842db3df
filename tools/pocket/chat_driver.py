"""How the pocket chat model drives: rules over the card that a driving model is sent, and its own eyes.

Each reply holds all calls that need no new sight: first what to draw and a picture of it; then its verdict on
that picture, the look-ups for what is missing and the next picture. A request may be a prompt of the grammar,
or a change to what was drawn before: another place ("now make it night"), another reference ("not that
bird"), once more ("again"). What is neither is refused, and nothing is drawn. Not covered: changing a
subject or a relation, and questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.tool import ToolCall, tool_call

from pleinair.tools.pocket.chat_cards import Arguments, picture, wanted
from pleinair.tools.pocket.chat_cards import card as read_card
from pleinair.tools.types import Row, belief

Call = tuple[str, Arguments]
Rows = Sequence[Arguments]

_CHANGE = re.compile(
    r"^(?:now |and |then |but |please )*(?P<it>(?:make|draw|paint|put) it |the same )?"
    r"(?P<place>[a-z ]+?)(?:,? (?:now|instead|please))*[.!]*$"
)
_NOT_THAT = re.compile(r"\bnot (?:that|this|the) (?P<what>[a-z' -]+?)(?:,? (?:again|please))*[.!]*$")
_AGAIN = re.compile(r"^(?:once more|again|try again|another one|draw it again)[.!]*$")
_ANY = {"one", "picture", "reference", "image", "photo"}
CHANGEABLE = (
    'of what was drawn only the place can be changed, such as "now make it night", and the references, '
    'such as "not that bird"; for other subjects say all that is to be seen, such as "a telma wren beside '
    'a velmora finch"'
)


class NothingToDo(ValueError):
    """A request was understood, and nothing can come of it."""


class Seeing(Protocol):
    """Judge a picture: one ledger row for each concept, in the order given."""

    def rows(self, png: bytes | None, concepts: Sequence[str]) -> list[Arguments]:
        """Judge the concepts."""
        ...


def is_driving(names: Sequence[str]) -> bool:
    """Tell whether the tools are those of a driver and not one question's schema."""
    return {"decompose", "generate", "critique"} <= set(names)


def drive(chat: Seeing, messages: Sequence[BaseMessage]) -> AIMessage:
    """Decide on the next calls from the newest card; a request outside the grammar is refused in words."""
    card = read_card(messages)
    try:
        calls = list(_following(card, chat, messages) if wanted(card, "concepts") else _first(card))
    except NothingToDo as reason:
        calls = [("finish", {"reason": f"{reason}.", "refused": True})]
    except ValueError as error:
        calls = [("finish", {"reason": f"I cannot read this prompt: {error}.", "refused": True})]
    return AIMessage("", tool_calls=[_named(one, number, messages) for number, one in enumerate(calls)])


def _named(call: Call, number: int, messages: Sequence[BaseMessage]) -> ToolCall:
    """Give a call an id of its own."""
    return tool_call(name=call[0], args=call[1], id=f"call_{len(messages)}_{number}")


def _first(card: Arguments) -> Iterator[Call]:
    """Say what is to be drawn, and draw it with the references that are known to serve."""
    from pleinair.tools.pocket.prompts import parse_prompt

    wish, unwanted = _understood(card)
    names = list(dict.fromkeys(parse_prompt(wish).subjects))
    yield "decompose", {"wish": wish, "concepts": [concept(name) for name in names]}
    if unwanted:
        yield "veto", {"ids": unwanted}
    served = [one for one in _last(card) if one["concept"] in names and one["id"] not in card["vetoed"]]
    again = [one["concept"] for one in served if one["id"] in unwanted]
    kept = [one for one in served if one["id"] not in unwanted]
    fresh = [_bring(name) for name in again if set(card["looked_up"].get(name, ())) - set(unwanted)]
    yield "generate", {"references": kept, "repairs": fresh}


def _understood(card: Arguments) -> tuple[str, list[str]]:
    """Give the wish in full, and the ids of references not wanted again; ValueError where unclear."""
    asked, before = " ".join(wanted(card, "prompt").lower().split()), card["before"]
    changes = _CHANGE.match(asked)
    place = _place_of(changes["place"]) if changes else ""
    unwanted = _NOT_THAT.search(asked)
    if not (unwanted or place or _AGAIN.match(asked) or (changes and changes["it"])):
        return _in_full(card["prompt"], bool(before)), []
    if not before:
        raise ValueError(f"nothing was drawn before that {asked!r} could change")
    if place:
        return _elsewhere(before["wish"], place), []
    if changes and changes["it"]:
        raise ValueError(CHANGEABLE)
    return before["wish"], _meant(unwanted["what"], _last(card)) if unwanted else []


def _in_full(prompt: str, talking: bool) -> str:
    """Check that a prompt says all that is to be seen; in a talk, a subject that may be none is refused.

    There an unknown noun needs its "a", since "bigger" and "the sky darker" would change what was drawn.
    """
    from pleinair.tools.pocket.names import KIND_OF_NOUN
    from pleinair.tools.pocket.prompts import HINT, parse_prompt

    try:
        subjects = parse_prompt(prompt).subjects
    except ValueError as error:
        raise ValueError(
            f"{str(error).removesuffix(HINT)}; {CHANGEABLE}" if talking else str(error)
        ) from error
    words = " ".join(prompt.lower().split())
    bare = [one for one in subjects if not re.search(rf"\ban? {re.escape(one)}", words)]
    strange = [one for one in bare if one.split()[-1] not in KIND_OF_NOUN]
    if talking and strange:
        raise ValueError(f"{strange[0]!r} is no subject that I know; {CHANGEABLE}")
    return prompt


def _meant(what: str, used: Sequence[dict[str, str]]) -> list[str]:
    """List the references that are not wanted; raise NothingToDo where none of that was used."""
    ids = [one["id"] for one in used if _means(what, one["concept"])]
    if not ids:
        drawn = ", ".join(dict.fromkeys(one["concept"] for one in used))
        raise NothingToDo(
            f"No reference that {what!r} could mean was used for the last picture"
            f"{f', only for {drawn}' if drawn else ''}, so there is none to leave out; "
            '"again" draws another one'
        )
    return ids


def _last(card: Arguments) -> list[dict[str, str]]:
    """List the references that the request before was drawn from."""
    return list(card["before"]["references"]) if card["before"] else []


def _means(what: str, concept: str) -> bool:
    """Tell whether "that bird" or "that one" means a concept."""
    from pleinair.tools.pocket.names import KIND_OF_NOUN

    words = concept.split()
    return what in (*_ANY, concept, *words, KIND_OF_NOUN.get(words[-1]))


def _place_of(words: str) -> str:
    """Give the grammar's words for a place that is named or described, "" for none."""
    from pleinair.tools.pocket.prompts import PLACES

    return next((ways[0] for kind, ways in PLACES.items() if words in (kind, *ways)), "")


def _elsewhere(wish: str, place: str) -> str:
    """Write a wish anew with another place."""
    from pleinair.tools.pocket.prompts import parse_prompt, with_article

    before = parse_prompt(wish)
    relation = f" {before.relation or 'beside'} "
    return f"{relation.join(map(with_article, before.subjects))} {place}"


def _following(card: Arguments, chat: Seeing, messages: Sequence[BaseMessage]) -> Iterator[Call]:
    """Judge the picture that is shown, and repair what the best one lacks, while pictures are left."""
    if not card["shown"]:
        yield "finish", {"reason": "there is no new picture to go on from"}
        return
    rows = chat.rows(picture(messages), card["concepts"])
    yield "critique", {"picture": card["shown"][-1], "rows": rows}
    best = max((*(one["rows"] for one in card["judged"]), rows), key=_worth)  # the earlier of equal ones
    missing = [row for row in best if row["status"] != "present"]
    if missing and card["pictures_left"] > 0:
        known = card["looked_up"] if card["slots"] else dict.fromkeys(card["concepts"], ())
        yield from (
            ("retrieve", {"concept": row["concept"]}) for row in missing if row["concept"] not in known
        )
        yield "generate", {"repairs": [_repair(row["concept"], known) for row in missing]}


def _worth(rows: Rows) -> tuple[int, float]:
    """Order pictures as the ledger does: more present rows, then belief that all are."""
    read = [Row(concept="", status=row["status"], confidence=row["confidence"]) for row in rows]
    return sum(row.status == "present" for row in read), sum(map(belief, read))


def _repair(name: str, known: dict[str, Sequence[str]]) -> Arguments:
    """Choose the cheapest repair that was not tried: a reference, another one, another seed."""
    if name not in known:
        return _bring(name, "add_reference")
    if known[name]:
        return _bring(name)
    return {"concept": name, "action": "new_seed", "why": "no reference is left to try"}


def _bring(name: str, action: str = "swap_reference") -> Arguments:
    """Plan a reference for a concept."""
    why = "no reference was tried yet" if action == "add_reference" else "the one before did not do"
    return {"concept": name, "action": action, "why": why}


def concept(name: str) -> Arguments:
    """Write the concept of a noun phrase."""
    from pleinair.tools.pocket.prompts import with_article

    return {"name": name, "caption": f"a photo of {with_article(name)}"}
