"""A scripted chat model that records the messages and the temperature of every call."""

import base64
import json
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatResult
from support.fake_engines import ScriptedChat, payload_in

Answers = Callable[[str, dict[str, Any]], dict[str, Any] | str]


class RecordingChat(ScriptedChat):
    """`ScriptedChat` that records its calls: schema, temperature and messages."""

    temperature: float | None = None
    calls: list[tuple[str, float | None, list[BaseMessage]]] = []

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        bound = super().bind_tools(tools, **kwargs)
        assert isinstance(bound, RecordingChat)
        bound.calls = self.calls
        return bound

    def _generate(self, messages: list[BaseMessage], *rest: Any, **kwargs: Any) -> ChatResult:
        self.calls.append((self.schema_name, self.temperature, messages))
        return super()._generate(messages, *rest, **kwargs)

    def temperatures(self, schema: str) -> list[float | None]:
        return [temperature for name, temperature, _ in self.calls if name == schema]

    def conversation(self, schema: str) -> list[BaseMessage]:
        """Return the messages of the last call for a schema."""
        return [messages for name, _, messages in self.calls if name == schema][-1]


def recording(answers: Answers) -> RecordingChat:
    return RecordingChat(policy=lambda schema, payload, _: answers(schema, payload), schemas=[], calls=[])


def payloads(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    """Return the payloads of a conversation, oldest first."""
    texts = [message.text for message in messages if isinstance(message, HumanMessage)]
    return [payload_in(text) for text in texts]


def answers_of(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    """Return the model's earlier answers."""
    return [json.loads(message.text) for message in messages if isinstance(message, AIMessage)]


def images_of(messages: list[BaseMessage]) -> list[list[bytes]]:
    """Return the images beside each payload."""
    humans = [message for message in messages if isinstance(message, HumanMessage)]
    return [
        [base64.b64decode(block["base64"]) for block in message.content_blocks if block["type"] == "image"]
        for message in humans
    ]


class ImageRAGAnswers:
    """Answers for the graph ImageRAG: the draft lacks `missing`, and a later image may match.

    `matches` are the answers of the decisions in turn, the last one for all that follow. `scripts` replace
    the answers for a schema, in turn; None stands for the usual one.
    """

    def __init__(self, *missing: str, matches: tuple[bool, ...] = (False,), **scripts: list[Any]) -> None:
        self.missing, self.matches, self.scripts = missing, list(matches), scripts

    def __call__(self, schema: str, payload: dict[str, Any]) -> dict[str, Any] | str:
        scripted = self.scripts.get(schema)
        answer: dict[str, Any] | str | None = scripted.pop(0) if scripted else None
        if answer is None:
            answer = dict(getattr(self, schema)(payload))
        return answer

    def Decision(self, payload: dict[str, Any]) -> dict[str, Any]:
        match = self.matches.pop(0) if len(self.matches) > 1 else self.matches[0]
        return {"match": match, "why": "as asked" if match else "not yet"}

    def MissingConcepts(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"concepts": list(self.missing)}

    def Captions(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {
            "captions": [{"name": name, "caption": f"a photo of a {name}"} for name in payload["concepts"]][
                ::-1
            ]
        }

    def Rephrasing(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": f"plainly: {payload['prompt']}"}
