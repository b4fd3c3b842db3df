"""The pocket chat model: rules for language, trained detectors for sight, behind LangChain's own interface.

It answers the schemas of `pleinair.tools.mllm.schemas` about the miniature world. Its language is the
grammar of `pleinair.tools.pocket.prompts`: a prompt outside it is refused in words, never guessed at. Not
covered: conversation, streaming, and whether relation, number and background of a prompt are met.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr

from pleinair.tools.pocket.chat_cards import (
    Arguments,
    OutsideGrammar,
    card,
    open_picture,
    pictures,
    request,
    subjects,
    usage,
    wanted,
    where,
)
from pleinair.tools.pocket.chat_driver import drive, is_driving
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.runnables import Runnable

    from pleinair.tools.pocket.eyes import ConceptDetector, Sight


class PocketChat(BaseChatModel):
    """Answer by rules about prompts and by trained eyes about pictures."""

    eyes: str = "pocket/eyes"  # the folder of the eyes; the shipped ones by default
    present_at: float = Field(default=0.7, ge=0, le=1)  # probability from which a concept is present
    missing_at: float = Field(default=0.3, ge=0, le=1)  # probability up to which it is missing
    error_rate: float = Field(default=0.0, ge=0, le=1)  # share of sights turned into their opposite
    error_seed: int = 0

    _loaded: ConceptDetector | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "pocket"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind the schemas that may be asked for; their names say which question is meant."""
        names = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self.bind(tools=names, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Answer the last question, or drive where all of a driver's tools are bound.

        Raises:
            BadInput: a tool it does not know, no arguments, or no picture where one is needed.
        """
        names = kwargs.get("tools") or []
        try:
            reply = self._answer(names, messages) if names else AIMessage(ABILITIES)
        except OutsideGrammar as reason:
            reply = AIMessage(f"I cannot read this prompt: {reason}. {LANGUAGE}.")
        reply.usage_metadata = usage(messages, reply)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _answer(self, names: Sequence[str], messages: Sequence[BaseMessage]) -> AIMessage:
        if is_driving(names):
            return drive(self, messages)
        if len(names) != 1 or names[0] not in ANSWERS:
            raise BadInput(
                f"PocketChat was asked for {', '.join(names)}; it answers one of {', '.join(ANSWERS)}."
            )
        asked, shown = card(messages), pictures(messages)
        arguments = ANSWERS[names[0]](self, asked | {"shown": shown}, shown[-1] if shown else None)
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
        return AIMessage("", tool_calls=[{"name": names[0], "args": arguments, "id": f"call_{digest[:16]}"}])

    def look(self, png: bytes | None, phrases: Sequence[str]) -> list[Sight]:
        """Look for each phrase, with the set error rate.

        Raises:
            BadInput: there is no picture in the conversation, or it cannot be read.
        """
        if png is None:
            raise BadInput("This question needs a picture: an image block with base64 data in a message.")
        sights = self._open_eyes().look(open_picture(png), phrases)
        return [self._err(png, phrase, sight) for phrase, sight in zip(phrases, sights, strict=True)]

    def _open_eyes(self) -> ConceptDetector:
        with self._lock:
            if self._loaded is None:
                from pleinair.tools.pocket.eyes import ConceptDetector

                self._loaded = ConceptDetector(self.eyes)
            return self._loaded

    def _err(self, png: bytes, phrase: str, sight: Sight) -> Sight:
        from dataclasses import replace

        key = f"{self.error_seed} {hashlib.sha256(png).hexdigest()} {phrase}"
        wrong = random.Random(key).random() < self.error_rate
        return replace(sight, probability=1 - sight.probability) if wrong else sight

    def row(self, concept: str, sight: Sight) -> Arguments:
        """Put one sight into the words of a ledger row.

        The advice stays empty: more words would leave the grammar, and another seed serves better.
        """
        p = sight.probability
        status = "present" if p >= self.present_at else "missing" if p <= self.missing_at else "unsure"
        sure = {"present": p, "missing": 1 - p, "unsure": max(p, 1 - p)}[status]
        evidence = {"present": "seen", "missing": "not found", "unsure": "perhaps seen"}[status]
        if sight.box and status != "missing":
            evidence += f" at {where(sight.box)}"
        if sight.unknown:
            evidence += f"; {sight.unknown!r} is a word these eyes never learnt"
        return {
            "concept": concept,
            "status": status,
            "confidence": round(sure, 4),
            "evidence": evidence,
            "box": sight.box and [round(edge, 4) for edge in sight.box],
        }

    def rows(self, png: bytes | None, concepts: Sequence[str]) -> list[Arguments]:
        """Return one row a concept, in the order given."""
        sights = self.look(png, concepts)
        return [self.row(concept, sight) for concept, sight in zip(concepts, sights, strict=True)]


def _decompose(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """List the prompt's subjects, each once."""
    return {"concepts": [concept(name) for name in subjects(asked)]}


def _critique(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """Judge the concepts in the order given."""
    return {"rows": chat.rows(png, wanted(asked, "concepts"))}


def _decide(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """Match exactly when every subject of the prompt is present."""
    rows = chat.rows(png, subjects(asked))
    match = all(row["status"] == "present" for row in rows)
    return {"match": match, "why": "; ".join(f"{row['concept']}: {row['evidence']}" for row in rows)}


def _list_missing(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """List the subjects that are not present, `at_most` of them; without a picture, any."""
    names = subjects(asked)
    if png is not None:
        names = [row["concept"] for row in chat.rows(png, names) if row["status"] != "present"]
    return {"concepts": names[: asked.get("at_most")]}


def _write_captions(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """Caption every concept given, each in `each` wordings as far as the grammar has them."""
    wordings = OPENINGS[: asked.get("each", 1)]
    return {"captions": [concept(name, words) for name in wanted(asked, "concepts") for words in wordings]}


def _rephrase(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """Choose another of the grammar's wordings, always the same one for a prompt."""
    from pleinair.tools.pocket.prompts import write_prompt

    rng = random.Random(wanted(asked, "prompt"))
    return {"prompt": write_prompt(rng, request(asked))}


def _rank(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """Number the pictures that may show all the text names, the likeliest first."""
    lines = wanted(asked, "text").splitlines() or [""]
    names = [name for line in lines for name in subjects({"prompt": line})]
    sights = enumerate((chat.look(each, names) for each in asked["shown"]), start=1)
    likely = {number: min(one.probability for one in seen) for number, seen in sights}
    shown = [number for number, p in likely.items() if p > chat.missing_at]
    return {"order": sorted(shown, key=lambda number: -likely[number])}


def _list_subqueries(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """List the prompt's subjects as sub-queries, each once."""
    return {"subqueries": subjects(asked)}


def _write_caption(chat: PocketChat, asked: Arguments, png: bytes | None) -> Arguments:
    """Name the one or two species that the eyes find likeliest; raise OutsideGrammar where they see none."""
    from pleinair.tools.pocket.prompts import with_article
    from pleinair.tools.pocket.world import SPECIES

    names = [species.name for species in SPECIES]
    seen = zip(chat.look(png, names), names, strict=True)
    found = sorted((-sight.probability, name) for sight, name in seen if sight.probability >= chat.present_at)
    if not found:
        raise OutsideGrammar("nothing that I know by name is in the picture")
    return {"caption": f"{OPENINGS[0]} {' beside '.join(with_article(name) for _, name in found[:2])}"}


ANSWERS: dict[str, Callable[[PocketChat, Arguments, bytes | None], Arguments]] = {
    "Decomposition": _decompose,
    "Critique": _critique,
    "Decision": _decide,
    "MissingConcepts": _list_missing,
    "Captions": _write_captions,
    "Rephrasing": _rephrase,
    "Ranking": _rank,
    "SubQueries": _list_subqueries,
    "PictureCaption": _write_caption,
}
OPENINGS = ("a photo of", "a picture of", "an image of")
LANGUAGE = (
    "I am a rule-based miniature: I read prompts such as 'a photo of a velmora finch beside a telma wren on "
    "snow' (one or two subjects of the miniature world, a relation, a place)"
)
ABILITIES = f"{LANGUAGE} and answer {', '.join(ANSWERS)}."


def concept(name: str, opening: str = OPENINGS[0]) -> Arguments:
    """Write the concept of a noun phrase."""
    from pleinair.tools.pocket.prompts import with_article

    return {"name": name, "caption": f"{opening} {with_article(name)}"}
