"""Tell apart what a reply without an answer is: a refusal, a filter, a cut-off, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from pleinair.tools.errors import CutOff, Empty, Filtered
from pleinair.tools.http.retry import Plan, Setback
from pleinair.tools.mllm.ask import UNFIT
from pleinair.tools.types import Refused

log = logging.getLogger(__name__)

ROOMIER = 4  # by this the cap is raised when an answer was cut off
CUT, FILTERED = ("length", "max_output_tokens"), ("content_filter",)
KNOWN = (*CUT, *FILTERED, "stop", "tool_calls", "function_call", "completed")


def message_of(result: ChatResult) -> AIMessage:
    """Give the one message of a result."""
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    return message


def weigh(result: ChatResult, plan: Plan) -> None:
    """Let an answer pass; raise a `Setback` for a reply that is none."""
    message = message_of(result)
    if refusal := _refusal_of(message):
        raise Setback(Refused(UNFIT.sub("", refusal)))
    finish = _finish_of(result.generations[0], message)
    if finish in FILTERED:
        raise _filtered()
    if finish in CUT:
        raise _cut_off(plan)
    if finish not in KNOWN:
        log.warning("The model ended its answer for an unknown reason: %.40r", finish)
    if not (message.text.strip() or message.tool_calls or message.invalid_tool_calls):
        raise Setback(Empty("The model gave an empty answer, twice: try another model."), "once")


def withheld(
    error: openai.LengthFinishReasonError | openai.ContentFilterFinishReasonError, plan: Plan
) -> Setback:
    """Say what openai's client found in the reply before we did."""
    return _cut_off(plan) if isinstance(error, openai.LengthFinishReasonError) else _filtered()


def counted(usage: UsageMetadata | None) -> list[UsageMetadata]:
    """Give what a reply says it cost, if it does."""
    return [usage] if usage else []


def paid_for(error: object) -> list[UsageMetadata]:
    """Count the tokens of a reply that openai's client kept back, where it says."""
    usage = getattr(getattr(error, "completion", None), "usage", None)
    if usage is None:
        return []
    used = UsageMetadata(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        total_tokens=usage.total_tokens or 0,
    )
    return [used]


def summed(replies: Sequence[UsageMetadata]) -> UsageMetadata:
    """Add what several tries have cost; a count that is no count is none."""
    read = sum(max(one["input_tokens"], 0) for one in replies)
    written = sum(max(one["output_tokens"], 0) for one in replies)
    total = sum(max(one["total_tokens"], 0) for one in replies)
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=max(total, read + written))


def _filtered() -> Setback:
    """Say that the provider took the answer away."""
    return Setback(Filtered("The provider's content filter withheld the model's answer."))


def _cut_off(plan: Plan) -> Setback:
    """Ask once more with a higher cap; part of an answer is none."""
    cap = plan.cap * ROOMIER
    text = "The model's answer was cut off at the cap of tokens: raise `mllm.max_tokens`."
    return Setback(CutOff(text), "once", change=lambda before: replace(before, cap=cap))


def _refusal_of(message: AIMessage) -> str:
    """Find the model's refusal, of either API; it has a field of its own."""
    found: Any = message.additional_kwargs.get("refusal")
    blocks = message.content if isinstance(message.content, list) else []
    inside = [block["refusal"] for block in blocks if isinstance(block, dict) and block.get("refusal")]
    return str(found or " ".join(map(str, inside)))


def _finish_of(generation: Any, message: AIMessage) -> str | None:
    """Say why the answer ended: Chat Completions' finish_reason, or the Responses API's status."""
    assert isinstance(generation, ChatGeneration)
    details = message.response_metadata.get("incomplete_details") or {}
    finish = (
        (generation.generation_info or {}).get("finish_reason")
        or details.get("reason")
        or message.response_metadata.get("status")
    )
    return str(finish) if finish else None
