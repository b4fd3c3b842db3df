"""Rules by which the pocket chat model drives the `react` graph, from the payload that a driver is sent.

Each reply holds all calls that need no new image: first `decompose` and `generate`; then the critique of the
image, `retrieve` for what is missing and the next `generate`. A request may be a prompt of the grammar, or a
change to what was generated before: another place ("now make it night"), another reference ("not that
bird"), once more ("again"). Any other is refused, and nothing is generated. Not covered: changing a subject
or a relation, and questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.tool import tool_call

from pleinair.tools.pocket.chat_payload import Json, argument, concept_of, images_in, read_payload
from pleinair.tools.pocket.invented.prompts import HINT, PLACES, parse_prompt, with_article
from pleinair.tools.pocket.invented.world import KIND_OF_NOUN
from pleinair.tools.types import Row, belief

Call = tuple[str, Json]
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


class _NothingToDo(ValueError):
    """A request that was understood and that changes nothing."""


class Critic(Protocol):
    """Judge of images: one ledger row for each concept, in order."""

    def rows(self, images: Sequence[bytes], concepts: Sequence[str]) -> list[Json]:
        """Judge the concepts in the newest image."""
        ...


def is_driving(names: Sequence[str]) -> bool:
    """Return whether the tools are a driver's and not the schema of one MLLM call."""
    return {"decompose", "generate", "critique"} <= set(names)


def drive(chat: Critic, messages: Sequence[BaseMessage]) -> AIMessage:
    """Return the next tool calls for the newest payload; refuse a request outside the grammar in words."""
    payload = read_payload(messages)
    started = bool(argument(payload, "concepts"))
    try:
        calls = list(_next_calls(payload, chat, messages) if started else _first_calls(payload))
    except _NothingToDo as reason:
        calls = [("finish", {"reason": f"{reason}.", "refused": True})]
    except ValueError as error:
        calls = [("finish", {"reason": f"I cannot read this prompt: {error}.", "refused": True})]
    ids = [f"call_{len(messages)}_{number}" for number in range(len(calls))]
    return AIMessage(
        "",
        tool_calls=[
            tool_call(name=name, args=args, id=id) for (name, args), id in zip(calls, ids, strict=True)
        ],
    )


def _first_calls(payload: Json) -> Iterator[Call]:
    """Decompose the request, and generate with the references that served before."""
    wish, vetoed = _interpret(payload)
    names = list(dict.fromkeys(parse_prompt(wish).subjects))
    yield "decompose", {"wish": wish, "concepts": [concept_of(name) for name in names]}
    if vetoed:
        yield "veto", {"ids": vetoed}
    served = [
        ref for ref in _last_used(payload) if ref["concept"] in names and ref["id"] not in payload["vetoed"]
    ]
    replaced = [ref["concept"] for ref in served if ref["id"] in vetoed]
    references = [ref for ref in served if ref["id"] not in vetoed]
    repairs = [_swap(name) for name in replaced if set(payload["looked_up"].get(name, ())) - set(vetoed)]
    yield "generate", {"references": references, "repairs": repairs}


def _interpret(payload: Json) -> tuple[str, list[str]]:
    """Return the complete prompt and the ids of vetoed references; raise ValueError if it is unclear."""
    text, before = " ".join(argument(payload, "prompt").lower().split()), payload["before"]
    change = _CHANGE.match(text)
    place = _place_of(change["place"]) if change else ""
    veto = _NOT_THAT.search(text)
    if not (veto or place or _AGAIN.match(text) or (change and change["it"])):
        return _complete_prompt(payload["prompt"], bool(before)), []
    if not before:
        raise ValueError(f"nothing was drawn before that {text!r} could change")
    if place:
        return _move(before["wish"], place), []
    if change and change["it"]:
        raise ValueError(_CHANGEABLE)
    return before["wish"], _vetoed_ids(veto["what"], _last_used(payload)) if veto else []


def _complete_prompt(prompt: str, in_chat: bool) -> str:
    """Check that a prompt is complete; in a chat, refuse a subject that may be a change instead.

    There an unknown noun needs its "a", since "bigger" and "the sky darker" would change what was generated.
    """
    try:
        subjects = parse_prompt(prompt).subjects
    except ValueError as error:
        reason = str(error)
        raise ValueError(f"{reason.removesuffix(HINT)}; {_CHANGEABLE}" if in_chat else reason) from error
    text = " ".join(prompt.lower().split())
    bare = [subject for subject in subjects if not re.search(rf"\ban? {re.escape(subject)}", text)]
    unknown = [subject for subject in bare if subject.split()[-1] not in KIND_OF_NOUN]
    if in_chat and unknown:
        raise ValueError(f"{unknown[0]!r} is no subject that I know; {_CHANGEABLE}")
    return prompt


def _vetoed_ids(what: str, used: Sequence[dict[str, str]]) -> list[str]:
    """List the references that "not that …" means; raise _NothingToDo if none of them was used."""
    ids = [ref["id"] for ref in used if _refers_to(what, ref["concept"])]
    if not ids:
        concepts = ", ".join(dict.fromkeys(ref["concept"] for ref in used))
        raise _NothingToDo(
            f"No reference that {what!r} could mean was used for the last picture"
            f"{f', only for {concepts}' if concepts else ''}, so there is none to leave out; "
            '"again" draws another one'
        )
    return ids


def _last_used(payload: Json) -> list[dict[str, str]]:
    """List the references of the previous request's image."""
    return list(payload["before"]["references"]) if payload["before"] else []


def _refers_to(what: str, concept: str) -> bool:
    """Return whether "that bird" or "that one" may mean a concept."""
    words = concept.split()
    return what in (*_ANY, concept, *words, KIND_OF_NOUN.get(words[-1]))


def _place_of(words: str) -> str:
    """Return the grammar's wording of a place, "" if the words are none."""
    return next((wordings[0] for kind, wordings in PLACES.items() if words in (kind, *wordings)), "")


def _move(prompt: str, place: str) -> str:
    """Rewrite a prompt with another place."""
    request = parse_prompt(prompt)
    relation = f" {request.relation or 'beside'} "
    return f"{relation.join(map(with_article, request.subjects))} {place}"


def _next_calls(payload: Json, chat: Critic, messages: Sequence[BaseMessage]) -> Iterator[Call]:
    """Judge the new image, and repair what the best image lacks, while images are left in the budget.

    Without a new image there is only something to repair if the user has renamed a concept meanwhile.
    """
    judged = [entry["rows"] for entry in payload["judged"]]
    if payload["shown"]:
        judged.append(chat.rows(images_in(messages), payload["concepts"]))
        yield "critique", {"picture": payload["shown"][-1], "rows": judged[-1]}
    best: list[Json] = max(judged, key=_rank, default=[])  # the first of equal ones
    missing = [row["concept"] for row in best if row["status"] != "present"]
    if not payload["shown"] and set(missing) <= payload["looked_up"].keys():
        yield "finish", {"reason": "there is no new picture to go on from"}
        return
    if missing and payload["pictures_left"] > 0:
        retrieved = payload["looked_up"] if payload["slots"] else dict.fromkeys(payload["concepts"], ())
        yield from (("retrieve", {"concept": name}) for name in missing if name not in retrieved)
        yield "generate", {"repairs": [_repair(name, retrieved) for name in missing]}


def _rank(rows: Sequence[Json]) -> tuple[int, float]:
    """Order images as the ledger does: by present rows, then by belief that all are."""
    ledger = [Row(concept="", status=row["status"], confidence=row["confidence"]) for row in rows]
    return sum(row.status == "present" for row in ledger), sum(map(belief, ledger))


def _repair(name: str, retrieved: dict[str, Sequence[str]]) -> Json:
    """Choose the cheapest repair that was not tried: a reference, another one, another seed."""
    if name not in retrieved:
        return {"concept": name, "action": "add_reference", "why": "no reference was tried yet"}
    if retrieved[name]:
        return _swap(name)
    return {"concept": name, "action": "new_seed", "why": "no reference is left to try"}


def _swap(name: str) -> Json:
    return {"concept": name, "action": "swap_reference", "why": "the one before did not do"}
