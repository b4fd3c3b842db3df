"""A scripted model that keeps every conversation and temperature it was called with."""

import base64
import json
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatResult
from support.fake_engines import ScriptedChat

Answers = Callable[[str, dict[str, Any]], dict[str, Any] | str]


class HearingChat(ScriptedChat):
    """Answer as `ScriptedChat` does, and remember what was heard."""

    temperature: float | None = None
    heard: list[tuple[str, float | None, list[BaseMessage]]] = []

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        bound = super().bind_tools(tools, **kwargs)
        assert isinstance(bound, HearingChat)
        bound.heard = self.heard
        return bound

    def _generate(self, messages: list[BaseMessage], *rest: Any, **kwargs: Any) -> ChatResult:
        self.heard.append((self.schema_name, self.temperature, messages))
        return super()._generate(messages, *rest, **kwargs)

    def temperatures(self, schema: str) -> list[float | None]:
        return [temperature for name, temperature, _ in self.heard if name == schema]

    def conversation(self, schema: str) -> list[BaseMessage]:
        """Give the last conversation that ended in this question."""
        return [messages for name, _, messages in self.heard if name == schema][-1]


def hearing(answers: Answers) -> HearingChat:
    return HearingChat(policy=lambda schema, card, _: answers(schema, card), asked=[], heard=[])


def cards(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    """Read the cards of a conversation, oldest first."""
    texts = [message.text for message in messages if isinstance(message, HumanMessage)]
    return [json.loads(text.removeprefix("```json\n").removesuffix("\n```")) for text in texts]


def said(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    """Read the model's earlier answers."""
    return [json.loads(message.text) for message in messages if isinstance(message, AIMessage)]


def shown(messages: list[BaseMessage]) -> list[list[bytes]]:
    """Give the pictures of each card."""
    humans = [message for message in messages if isinstance(message, HumanMessage)]
    return [
        [base64.b64decode(block["base64"]) for block in message.content_blocks if block["type"] == "image"]
        for message in humans
    ]


class Painter:
    """Answer ImageRAG's questions: the draft shows nothing of `missing`; a look may see a match later.

    `matches` are the answers of the decisions in turn, the last one for all that follow. `prose` replaces the
    answers of one question, in turn; None gives the usual one.
    """

    def __init__(self, *missing: str, matches: tuple[bool, ...] = (False,), **prose: list[Any]) -> None:
        self.missing, self.matches, self.prose = missing, list(matches), prose

    def __call__(self, schema: str, card: dict[str, Any]) -> dict[str, Any] | str:
        scripted = self.prose.get(schema)
        answer: dict[str, Any] | str | None = scripted.pop(0) if scripted else None
        if answer is None:
            answer = dict(getattr(self, schema)(card))
        return answer

    def Decision(self, card: dict[str, Any]) -> dict[str, Any]:
        match = self.matches.pop(0) if len(self.matches) > 1 else self.matches[0]
        return {"match": match, "why": "as asked" if match else "not yet"}

    def MissingConcepts(self, card: dict[str, Any]) -> dict[str, Any]:
        return {"concepts": list(self.missing)}

    def Captions(self, card: dict[str, Any]) -> dict[str, Any]:
        return {
            "captions": [{"name": name, "caption": f"a photo of a {name}"} for name in card["concepts"]][::-1]
        }

    def Rephrasing(self, card: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": f"plainly: {card['prompt']}"}
