"""Pocket chat model: rules for language and a trained concept detector for images, as a LangChain chat model.

It answers the schemas of `pleinair.tools.mllm.schemas` about the miniature world. A prompt
that its language does not cover is refused in words, never guessed at. Not covered: conversation, streaming,
and whether relation, number and background of a prompt are met.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr

from pleinair.tools.pocket.chat_driver import drive, is_driving
from pleinair.tools.pocket.chat_payload import Json, argument, decode_image, images_in, read_payload, usage
from pleinair.tools.pocket.language import Language, OutsideWorld
from pleinair.tools.pocket.worlds import DEFAULT, World, language_of, model_folder
from pleinair.tools.types import BadInput, Box

if TYPE_CHECKING:
    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.runnables import Runnable

    from pleinair.tools.pocket.detector import ConceptDetector, Detection


class PocketChat(BaseChatModel):
    """Chat model that answers by rules about prompts and by a concept detector about images."""

    world: World = DEFAULT  # whose names and prompts it reads
    detector: str = ""  # the detector's folder; the shipped one of the world if empty
    present_at: float = Field(default=0.7, ge=0, le=1)  # probability from which a concept is present
    missing_at: float = Field(default=0.3, ge=0, le=1)  # probability up to which it is missing
    error_rate: float = Field(default=0.0, ge=0, le=1)  # share of detections that are inverted
    error_seed: int = 0  # of the inverted detections

    _loaded: ConceptDetector | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "pocket"

    @property
    def language(self) -> Language:
        """Return the language of the world that the model knows."""
        return language_of(self.world)

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind the schema of an MLLM call, or all of a driver's tools, by name."""
        names = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self.bind(tools=names, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        names = kwargs.get("tools") or []
        try:
            reply = self._answer(names, messages) if names else AIMessage(self._describe())
        except OutsideWorld as reason:
            reply = AIMessage(f"{reason}. {self.language.abilities}.")
        reply.usage_metadata = usage(messages, reply)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _answer(self, names: Sequence[str], messages: Sequence[BaseMessage]) -> AIMessage:
        if is_driving(names):
            return drive(self, messages)
        if len(names) != 1 or names[0] not in ANSWERS:
            raise BadInput(
                f"PocketChat cannot answer {', '.join(names)}; bind exactly one of {', '.join(ANSWERS)}."
            )
        images = images_in(messages)
        arguments = ANSWERS[names[0]](self, read_payload(messages), images)
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
        return AIMessage("", tool_calls=[{"name": names[0], "args": arguments, "id": f"call_{digest[:16]}"}])

    def _describe(self) -> str:
        return f"{self.language.abilities} and answer {', '.join(ANSWERS)}."

    def detect(self, images: Sequence[bytes], phrases: Sequence[str]) -> list[Detection]:
        """Return a detection for each phrase in the newest image, inverted at the configured error rate.

        Raises:
            BadInput: there is no image, or it cannot be read.
        """
        if not images:
            raise BadInput("This MLLM call needs an image; add an image block with base64 data to a message.")
        image = images[-1]
        detections = self._open_detector().detect(decode_image(image), phrases)
        return [self._err(image, phrase, hit) for phrase, hit in zip(phrases, detections, strict=True)]

    def _open_detector(self) -> ConceptDetector:
        with self._lock:
            if self._loaded is None:
                from pleinair.tools.pocket.detector import ConceptDetector

                detector = self.detector or model_folder(self.world, "detector")
                self._loaded = ConceptDetector(detector, model_folder(self.world, "encoder"))
            return self._loaded

    def _err(self, image: bytes, phrase: str, detection: Detection) -> Detection:
        key = f"{self.error_seed} {hashlib.sha256(image).hexdigest()} {phrase}"
        wrong = random.Random(key).random() < self.error_rate
        return replace(detection, probability=1 - detection.probability) if wrong else detection

    def rows(self, images: Sequence[bytes], concepts: Sequence[str]) -> list[Json]:
        """Return one ledger row for each concept, in order.

        The advice stays empty: more words would leave its language, and another seed serves better.
        """
        detections = self.detect(images, concepts)
        return [self._row(concept, hit) for concept, hit in zip(concepts, detections, strict=True)]

    def _row(self, concept: str, detection: Detection) -> Json:
        p = detection.probability
        status = "present" if p >= self.present_at else "missing" if p <= self.missing_at else "unsure"
        if detection.unknown and status == "missing":
            status = "unsure"  # what it never learnt to see may be there
        confidence = {"present": p, "missing": 1 - p, "unsure": max(p, 1 - p)}[status]
        evidence = {"present": "seen", "missing": "not found", "unsure": "perhaps seen"}[status]
        if detection.box and status != "missing":
            evidence += f" at {describe_place(detection.box)}"
        if detection.unknown:
            evidence += f"; {detection.unknown!r} is a word the detector never learnt"
        return {
            "concept": concept,
            "status": status,
            "confidence": round(confidence, 4),
            "evidence": evidence,
            "box": detection.box and [round(edge, 4) for edge in detection.box],
        }


def describe_place(box: Box) -> str:
    """Return where a box's centre is, such as "top left", "right" or "the centre"."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    row = "top" if y < 0.38 else "bottom" if y > 0.62 else ""
    column = "left" if x < 0.38 else "right" if x > 0.62 else ""
    return f"{row} {column}".strip() or "the centre"


def _subjects(chat: PocketChat, payload: Json) -> list[str]:
    """Return the names of the concepts of the payload's prompt."""
    return [concept.name for concept in chat.language.concepts(argument(payload, "prompt"))]


def _decompose(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    concepts = chat.language.concepts(argument(payload, "prompt"))
    return {"concepts": [concept.model_dump() for concept in concepts]}


def _critique(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    return {"rows": chat.rows(images, argument(payload, "concepts"))}


def _decide(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    """Match exactly if every subject of the prompt is present."""
    rows = chat.rows(images, _subjects(chat, payload))
    match = all(row["status"] == "present" for row in rows)
    return {"match": match, "why": "; ".join(f"{row['concept']}: {row['evidence']}" for row in rows)}


def _list_missing(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    """List the subjects that are not present, at most `at_most` of them; without an image, all count."""
    names = _subjects(chat, payload)
    if images:
        names = [row["concept"] for row in chat.rows(images, names) if row["status"] != "present"]
    return {"concepts": names[: payload.get("at_most")]}


def _write_captions(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    """Caption every concept in `each` wordings, or in as many as the language has."""
    each = payload.get("each", 1)
    return {
        "captions": [
            {"name": name, "caption": caption}
            for name in argument(payload, "concepts")
            for caption in chat.language.captions(name, each)
        ]
    }


def _rephrase(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    return {"prompt": chat.language.rephrase(argument(payload, "prompt"))}


def _rank(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    """Number the images that may show everything in the text, the likeliest first."""
    lines = argument(payload, "text").splitlines() or [""]
    names = [name for line in lines for name in _subjects(chat, {"prompt": line})]
    scores = [min(hit.probability for hit in chat.detect([image], names)) for image in images]
    order = [number for number, score in enumerate(scores, start=1) if score > chat.missing_at]
    return {"order": sorted(order, key=lambda number: -scores[number - 1])}


def _list_subqueries(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    return {"subqueries": _subjects(chat, payload)}


def _write_caption(chat: PocketChat, payload: Json, images: Sequence[bytes]) -> Json:
    """Caption the image with the one or two likeliest species; raise OutsideWorld if none is present."""
    names = chat.language.names
    pairs = zip(chat.detect(images, names), names, strict=True)
    present = sorted((-hit.probability, name) for hit, name in pairs if hit.probability >= chat.present_at)
    if not present:
        raise OutsideWorld("Nothing that I know by name is in the picture")
    return {"caption": chat.language.caption([name for _, name in present[:2]])}


ANSWERS: dict[str, Callable[[PocketChat, Json, Sequence[bytes]], Json]] = {
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
