"""Rules by which the pocket chat model drives the `react` graph, from the payload that a driver is sent.

Each reply holds all calls that need no new image: first `decompose` and `generate`; then the critique of the
image, `retrieve` for what is missing and the next `generate`. A request is a prompt, or a change to what was
generated before; what the world's language does not read is refused, and nothing is generated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.tool import tool_call

from pleinair.tools.pocket.chat_payload import Json, argument, images_in, read_payload
from pleinair.tools.pocket.language import Change, Language, OutsideWorld
from pleinair.tools.types import Row, belief

Call = tuple[str, Json]


class _NothingToDo(ValueError):
    """A request that was understood and that changes nothing."""


class Critic(Protocol):
    """Judge of images: one ledger row for each concept, in order."""

    @property
    def language(self) -> Language:
        """Return the language that prompts are read in."""
        ...

    def rows(self, images: Sequence[bytes], concepts: Sequence[str]) -> list[Json]:
        """Judge the concepts in the newest image."""
        ...


def is_driving(names: Sequence[str]) -> bool:
    """Return whether the tools are a driver's and not the schema of one MLLM call."""
    return {"decompose", "generate", "critique"} <= set(names)


def drive(chat: Critic, messages: Sequence[BaseMessage]) -> AIMessage:
    """Return the next tool calls for the newest payload; refuse a request outside the language in words."""
    payload = read_payload(messages)
    started = bool(argument(payload, "concepts"))
    try:
        calls = list(_next_calls(payload, chat, messages) if started else _first_calls(payload, chat))
    except (_NothingToDo, OutsideWorld) as reason:
        calls = [("finish", {"reason": f"{reason}.", "refused": True})]
    ids = [f"call_{len(messages)}_{number}" for number in range(len(calls))]
    return AIMessage(
        "",
        tool_calls=[
            tool_call(name=name, args=args, id=id) for (name, args), id in zip(calls, ids, strict=True)
        ],
    )


def _first_calls(payload: Json, chat: Critic) -> Iterator[Call]:
    """Decompose the request, and generate with the references that served before; answer a question."""
    language, before = chat.language, payload["before"]
    if answer := language.answer(argument(payload, "prompt")):
        yield "finish", {"reason": answer, "refused": True}
        return
    change = language.change(argument(payload, "prompt"), before["wish"] if before else "")
    concepts, vetoed = language.concepts(change.prompt), _ids_of(change, _last_used(payload))
    names = [concept.name for concept in concepts]
    yield "decompose", {"wish": change.prompt, "concepts": [concept.model_dump() for concept in concepts]}
    if vetoed:
        yield "veto", {"ids": vetoed}
    served = [
        ref for ref in _last_used(payload) if ref["concept"] in names and ref["id"] not in payload["vetoed"]
    ]
    replaced = [ref["concept"] for ref in served if ref["id"] in vetoed]
    references = [ref for ref in served if ref["id"] not in vetoed]
    repairs = [_swap(name) for name in replaced if set(payload["looked_up"].get(name, ())) - set(vetoed)]
    yield "generate", {"references": references, "repairs": repairs}


def _ids_of(change: Change, used: Sequence[dict[str, str]]) -> list[str]:
    """List the references that are vetoed; raise _NothingToDo if none of them was used."""
    ids = [ref["id"] for ref in used if ref["concept"] in change.vetoed_concepts]
    if change.vetoed and not ids:
        concepts = ", ".join(dict.fromkeys(ref["concept"] for ref in used))
        raise _NothingToDo(
            f"No reference that {change.vetoed!r} could mean was used for the last picture"
            f"{f', only for {concepts}' if concepts else ''}, so there is none to leave out; "
            '"again" draws another one'
        )
    return ids


def _last_used(payload: Json) -> list[dict[str, str]]:
    """List the references of the previous request's image."""
    return list(payload["before"]["references"]) if payload["before"] else []


def _next_calls(payload: Json, chat: Critic, messages: Sequence[BaseMessage]) -> Iterator[Call]:
    """Judge the new image, and repair what the best image lacks, while images are left in the budget.

    Without a new image there is only something to repair if the user has renamed a concept meanwhile; without
    any image the generator failed, and may not do so again.
    """
    judged = [entry["rows"] for entry in payload["judged"]]
    if payload["shown"]:
        judged.append(chat.rows(images_in(messages), payload["concepts"]))
        yield "critique", {"picture": payload["shown"][-1], "rows": judged[-1]}
    if not judged and payload["pictures_left"] > 0:
        yield "generate", {}
        return
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
