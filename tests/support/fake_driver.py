"""Fake driver models for the `react` graph: one scripted by each test, one that follows the pocket rules."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from support.quick_engines import ALONE

from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.chat_payload import decode_image

Status = dict[str, Any]  # the JSON of the status message
Policy = Callable[[Status, list[BaseMessage]], AIMessage]


class Driver(BaseChatModel):
    """Driving model that replies by `policy(status, messages)` and records messages and offered tools."""

    policy: Policy
    sent: list[list[BaseMessage]] = []
    offered: list[str] = []

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[LanguageModelInput, AIMessage]:
        self.offered[:] = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.sent.append(messages)
        return ChatResult(generations=[ChatGeneration(message=self.policy(status_of(messages), messages))])

    @property
    def _llm_type(self) -> str:
        return "driver"


def driver(policy: Policy) -> Driver:
    return Driver(policy=policy, sent=[], offered=[])


def status_of(messages: Sequence[BaseMessage]) -> Status:
    """Read the JSON of the last message."""
    last = messages[-1]
    assert isinstance(last, HumanMessage)
    text = last.content if isinstance(last.content, str) else last.content[0]["text"]  # type: ignore[index]
    return dict(json.loads(text.removeprefix("```json\n").removesuffix("\n```")))


def reply(*calls: tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], str], says: str = "") -> AIMessage:
    """Write a reply with calls; a call without an id gets one."""
    tool_calls = []
    for number, (name, args, *id) in enumerate(calls):
        reply.count += 1  # type: ignore[attr-defined]
        tool_calls.append({"name": name, "args": args, "id": id[0] if id else f"c{reply.count}-{number}"})  # type: ignore[attr-defined]
    return AIMessage(says, tool_calls=tool_calls)


reply.count = 0  # type: ignore[attr-defined]


class Talker(PocketChat):
    """Pocket chat model that finds all concepts where a reference was used, else the first one."""

    pause: float = 0.0
    says: str = ""
    satisfied: bool = True

    def rows(self, images: Sequence[bytes], concepts: Sequence[str]) -> list[dict[str, Any]]:
        complete = self.satisfied and decode_image(images[-1]).getpixel((0, 0)) != ALONE
        return [
            {
                "concept": name,
                "status": "present" if complete or number == 0 else "missing",
                "confidence": 0.9,
            }
            for number, name in enumerate(concepts)
        ]

    def _generate(self, messages: list[BaseMessage], *rest: Any, **kwargs: Any) -> ChatResult:
        time.sleep(self.pause)
        result = super()._generate(messages, *rest, **kwargs)
        result.generations[0].message.content = self.says
        return result


def talker(pause: float = 0.0, says: str = "", satisfied: bool = True) -> Talker:
    """Build a talker from values that a profile can have."""
    return Talker(pause=pause, says=says, satisfied=satisfied)
