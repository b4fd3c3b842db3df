"""What a driving model's reply is good for: which calls are carried out, and what it is told about the rest.

A reply is acted on only when it is whole: no call of a message that was cut off, none with arguments that
are no JSON, none whose id is missing or was used before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from pleinair.agent.react import prompts
from pleinair.agent.react.state import note

MOST_CALLS = 8  # in one message
MOST_TEXT = 20_000  # characters
CUT_OFF = {"length", "max_tokens", "incomplete", "MAX_TOKENS"}
FILTERED = {"content_filter", "SAFETY", "refusal"}
KEPT = {"text", "reasoning", "thinking", "function_call", "tool_call", "tool_use"}  # kinds of content blocks

Check = Callable[[dict[str, Any]], str]  # says what is wrong with a call, "" if nothing


@dataclass(frozen=True)
class Verdict:
    """Hold what goes into the conversation, and how the run ends if it does."""

    messages: tuple[BaseMessage, ...]
    refused: str = ""  # why the model or its provider will not
    words: str = ""  # the model's last ones: it was reminded to call a tool, and still talks


def vet(reply: AIMessage, heard: Sequence[BaseMessage], check: Check) -> Verdict:
    """Decide what becomes of a reply; `heard` is the conversation of this request so far."""
    if reason := _refusal(reply):
        return Verdict((AIMessage(reason),), reason)
    if fault := _broken(reply, heard):
        return Verdict((AIMessage(reply.text[:MOST_TEXT] or "…"), note(fault)))
    if not (reply.tool_calls or reply.invalid_tool_calls):
        return _in_words(reply, heard)
    return Verdict((_kept(reply), *_objections(reply, check)))


def unheard(fault: str, refused: str = "") -> Verdict:
    """Put a call that failed before there was a reply into the conversation."""
    return Verdict((AIMessage(refused or "…"), *([] if refused else [note(fault)])), refused)


def _refusal(reply: AIMessage) -> str:
    """Give the reason where the model or its provider declined, "" where neither did."""
    said = str(reply.additional_kwargs.get("refusal") or "")
    blocks = reply.content if isinstance(reply.content, list) else []
    for block in blocks:
        if isinstance(block, dict) and block.get("type") == "refusal":
            said = said or str(block.get("refusal") or "")
    if said or _ended(reply) in FILTERED:
        return said or "the model's provider filtered the answer"
    return ""


def _ended(reply: AIMessage) -> str:
    """Give the reason that the provider names for the reply's end, "" where it names none."""
    facts = reply.response_metadata
    return str(facts.get("finish_reason") or facts.get("stop_reason") or facts.get("status") or "")


def _broken(reply: AIMessage, heard: Sequence[BaseMessage]) -> str:
    """Say why none of a reply can be used, "" if it can."""
    if _ended(reply) in CUT_OFF or len(reply.text) > MOST_TEXT:
        return prompts.CUT
    ids = [call["id"] or "" for call in (*reply.tool_calls, *reply.invalid_tool_calls)]
    before = {call["id"] for one in heard if isinstance(one, AIMessage) for call in one.tool_calls}
    if not all(ids):
        return prompts.IDS.format("one has none")
    if again := [id for id, count in Counter(ids).items() if count > 1 or id in before]:
        return prompts.IDS.format(", ".join(again)[:200])
    return ""


def _in_words(reply: AIMessage, heard: Sequence[BaseMessage]) -> Verdict:
    """Remind a model that only talks, once; talk that goes on is its answer."""
    text = reply.text.strip()
    if not text:
        return Verdict((AIMessage("…"), note(prompts.EMPTY)))
    reminded = bool(heard) and heard[-1].text == prompts.NO_CALL
    if reminded:
        return Verdict((AIMessage(text),), words=text)
    return Verdict((AIMessage(text), note(prompts.NO_CALL)))


def _kept(reply: AIMessage) -> AIMessage:
    """Keep of a reply what the next call needs: its words, thoughts and calls, no picture, no bookkeeping.

    A call whose arguments are no JSON is kept without them, because servers refuse a conversation with it.
    """
    content = reply.content
    if isinstance(content, list):
        content = [one for one in content if isinstance(one, str) or one.get("type") in KEPT]
    thoughts = {key: value for key, value in reply.additional_kwargs.items() if key.startswith("reasoning")}
    bare = [
        tool_call(name=one["name"] or "unknown", args={}, id=one["id"]) for one in reply.invalid_tool_calls
    ]
    return AIMessage(content, tool_calls=[*reply.tool_calls, *bare], additional_kwargs=thoughts)


def _objections(reply: AIMessage, check: Check) -> list[ToolMessage]:
    """Answer the calls that will not be carried out."""
    rejected = [error(call, prompts.NO_JSON) for call in reply.invalid_tool_calls]
    for number, call in enumerate(reply.tool_calls):
        wrong = prompts.TOO_MANY.format(MOST_CALLS) if number >= MOST_CALLS else check(dict(call))
        if wrong:
            rejected.append(error(call, wrong))
    return rejected


def error(call: Any, text: str) -> ToolMessage:
    """Tell the model why a call failed."""
    return ToolMessage(text, tool_call_id=call["id"], name=call["name"] or "unknown", status="error")
