"""Replies of OpenAI's interface: which are answers, which failures, and how many tokens they cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from pleinair.tools.errors import CutOff, EmptyAnswer, Filtered
from pleinair.tools.http.retry import CallFailure
from pleinair.tools.mllm.ask import UNPRINTABLE
from pleinair.tools.types import Refused

log = logging.getLogger(__name__)

_CUT_OFF, _FILTERED = ("length", "max_output_tokens"), ("content_filter",)
_REASONS = (*_CUT_OFF, *_FILTERED, "stop", "tool_calls", "function_call", "completed")


def message_of(result: ChatResult) -> AIMessage:
    """Return the one message of a result."""
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    return message


def check_reply(result: ChatResult) -> None:
    """Raise `CallFailure` for a reply that is no answer."""
    message = message_of(result)
    if refusal := _refusal_of(message):
        raise CallFailure(Refused(UNPRINTABLE.sub("", refusal)))
    reason = _finish_reason(result.generations[0], message)
    if reason in _FILTERED:
        raise filtered()
    if reason in _CUT_OFF:
        raise cut_off()
    if reason not in _REASONS:
        log.warning("The model ended its answer for an unknown reason: %.40r", reason)
    if not (message.text.strip() or message.tool_calls or message.invalid_tool_calls):
        raise CallFailure(EmptyAnswer("The model gave an empty answer, twice.", "Try another model."), "once")


def filtered() -> CallFailure:
    """Return the failure of an answer that the provider withheld."""
    return CallFailure(Filtered("The provider's content filter withheld the model's answer."))


def cut_off() -> CallFailure:
    """Return the failure of an answer that reached the cap of tokens; a part of an answer is not used."""
    text = "The model's answer was cut off at the cap of tokens: raise `mllm.max_tokens`."
    return CallFailure(CutOff(text), "once", wait=0.0)


def total_usage(usages: Sequence[UsageMetadata]) -> UsageMetadata:
    """Add up the tokens of several attempts; a negative count is 0."""
    input_tokens = sum(max(usage["input_tokens"], 0) for usage in usages)
    output_tokens = sum(max(usage["output_tokens"], 0) for usage in usages)
    total = sum(max(usage["total_tokens"], 0) for usage in usages)
    return UsageMetadata(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=max(total, input_tokens + output_tokens),
    )


def _refusal_of(message: AIMessage) -> str:
    """Return the model's refusal, which has a field of its own in both APIs."""
    refusal: Any = message.additional_kwargs.get("refusal")
    blocks = message.content if isinstance(message.content, list) else []
    inside = [block["refusal"] for block in blocks if isinstance(block, dict) and block.get("refusal")]
    return str(refusal or " ".join(map(str, inside)))


def _finish_reason(generation: Any, message: AIMessage) -> str | None:
    """Return Chat Completions' finish_reason, or the status of the Responses API."""
    assert isinstance(generation, ChatGeneration)
    details = message.response_metadata.get("incomplete_details") or {}
    reason = (
        (generation.generation_info or {}).get("finish_reason")
        or details.get("reason")
        or message.response_metadata.get("status")
    )
    return str(reason) if reason else None
