"""Replies of OpenAI's interface: which are answers, which failures, and how many tokens they cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatResult

from pleinair.tools.errors import CutOff, EmptyAnswer, Filtered
from pleinair.tools.http.retry import CallFailure
from pleinair.tools.mllm.ask import UNPRINTABLE
from pleinair.tools.mllm.reading import finish_reason, is_complete, is_empty, refusal_of
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
    if refusal := refusal_of(message):
        raise CallFailure(Refused(UNPRINTABLE.sub("", refusal)))
    reason = (result.generations[0].generation_info or {}).get("finish_reason") or finish_reason(message)
    if reason in _FILTERED:
        raise CallFailure(Filtered("The provider's content filter withheld the model's answer."))
    if reason in _CUT_OFF and not is_complete(message):
        # a part of an answer is not used
        text = "The model's answer was cut off at the cap of tokens: raise `mllm.max_tokens`."
        raise CallFailure(CutOff(text), "once", wait=0.0)
    if reason not in _REASONS:
        log.warning("The model ended its answer for an unknown reason: %.40r", reason)
    if is_empty(message):
        raise CallFailure(EmptyAnswer("The model gave an empty answer, twice.", "Try another model."), "once")


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
