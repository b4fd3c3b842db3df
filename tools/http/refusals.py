"""Which part of a request a server refuses: read from its error's fields, from its words where it has none.

The words are those of OpenAI, Azure, vLLM, SGLang, Ollama, llama.cpp, LM Studio, OpenRouter, Gemini, Mistral,
Groq, DeepSeek and FastAPI. This is the only place that reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pleinair.tools.http.support import Part, Refusal, Request

STATUSES = frozenset((400, 404, 415, 422, 500, 501))  # of refusals; OpenRouter has 404: "no endpoints"

_VERBS = r"(support|allow|accept|permit|recogni|valid|implement|compatible|available|enabled)"
_NO = rf"(not|n't|un|in)\s*(yet\s*)?{_VERBS}|only"
_SIZE = re.compile(
    r"too (large|big|high|many|long)|exceed|at most|less than|maximum|larger|greater|range|<=|≤", re.I
)
_IMAGES = re.compile(
    r"(image|vision|multi.?modal|media|picture|mmproj).{0,80}(" + _NO + r"|disabled|unknown|no endpoints)"
    r"|(" + _NO + r"|unknown|no endpoints).{0,80}(image|vision|multi.?modal|mmproj)"
    r"|not (an? )?(multi.?modal|vision)|text.only model|only (supports? )?text"
    r"|cannot (read|process) image|unknown variant .image_url|mmproj|at most 0 image"
    r"|missing data required for image|vision.{0,20}not loaded|content must be a string",
    re.I | re.S,
)
# In this order; the first that was sent and is named is refused.
_WORDS: dict[Part, str] = {
    "cap": r"max_(completion_|output_|new_)?tokens|num_predict",
    "parallel_tool_calls": r"parallel.?(tool|function).?calls?",
    "tool_choice": r"tool.?choice|tool_call.?parser|enable.auto.tool",
    "temperature": r"temperature",
    "cache_control": r"cache.?control",
    "detail": r"image_url\W{1,3}detail|\bdetail\b(?!\W?\s*:).{0,40}(field|param|extra|unexpected|support)"
    r"|(unknown|extra|unexpected) (field|param).{0,20}\bdetail\b",
    "strict": r"['\"`]strict['\"`]|\bstrict\b.{0,40}(mode|field|param|extra|unexpected|support)",
    "answers": r"response.?format|json.?(schema|object|mode)|structured.?output|guided|grammar"
    r"|\$ref|\$defs|\bschema\b|text\.format|response_schema|requested parameters",
    "tools": r"\btools?\b|function.?(call|declaration)|\bfunctions?\b",
    "roles": r"system (role|message|prompt|instruction)|roles must alternate|developer instruction",
}
_PARAMS: dict[str, Part] = {
    "max_tokens": "cap",
    "max_completion_tokens": "cap",
    "max_output_tokens": "cap",
    "response_format": "answers",
    "text": "answers",
    "tools": "tools",
    "functions": "tools",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
    "temperature": "temperature",
    "cache_control": "cache_control",
    "detail": "detail",
    "strict": "strict",
}
_OF_ONE_IMAGE = re.compile(
    r"image.?(format|type|size|file|length|width)|image is valid|valid image"
    r"|unsupported image\b|base64|decod|corrupt|dimension|mime"
    r"|too (large|small|many)|at most [1-9]",
    re.I,
)


def refusal_of(status: int, body: object, sent: Request, message: str = "") -> Refusal | None:
    """Return what a server refuses of what was sent; None for another error.

    `body` is the error object, OpenAI's or FastAPI's list of details, and `message` the server's words where
    it is none.
    """
    if status not in STATUSES:
        return None
    error = body if isinstance(body, Mapping) else {}
    words = _words(error) or message
    if status == 404 and not re.search(r"no endpoints|support", words, re.I):
        return None
    for part in (*_by_fields(error), *_by_words(words, sent)):
        if part in _sent_parts(sent):
            return Refusal(part=part, size=_size(words, sent) if part == "cap" else 0)
    return None


def _sent_parts(sent: Request) -> set[Part]:
    parts: set[Part] = {"temperature", "roles"}
    if sent.answers and sent.answers != "text":
        parts |= {"answers", "strict"}
    if sent.tools:
        parts |= {"tools", "tool_choice", "parallel_tool_calls", "strict"}
    parts |= {"cap"} if sent.cap_name else set()
    parts |= {"cache_control"} if sent.cache_marks else set()
    return parts | ({"images", "detail"} if sent.images else set())


def _by_fields(error: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the parts that the fields name: `param`, or FastAPI's places, the last key first."""
    places = [re.split(r"[.\[\]]+", str(error.get("param") or ""))]
    inner = error.get("message")  # Mistral's place for FastAPI's details
    details = (inner if isinstance(inner, Mapping) else error).get("detail")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, Mapping) and isinstance(detail.get("loc"), list):
            places.append([str(key) for key in detail["loc"]])
    for place in places:
        for key in reversed(place):
            if key in _PARAMS:
                yield _PARAMS[key]


def _by_words(words: str, sent: Request) -> Iterator[Part]:
    if sent.images and _IMAGES.search(words) and not _OF_ONE_IMAGE.search(words):
        yield "images"
    for part, pattern in _WORDS.items():
        if re.search(pattern, words, re.I):
            yield part


def _words(error: Mapping[str, Any]) -> str:
    """Return every text of an error object; OpenRouter has the provider's own in `metadata`."""
    texts = [error.get(key) for key in ("message", "detail", "msg", "error", "code", "type")]
    metadata = error.get("metadata")
    texts += list(metadata.values()) if isinstance(metadata, Mapping) else []
    return " ".join(str(text) for text in texts if text)


def _size(words: str, sent: Request) -> int:
    """Return the size of a cap that is allowed instead: a number of the message, or half of what was sent.

    0 if the parameter itself is refused.
    """
    if not _SIZE.search(words) or re.search(r"unsupported.?param|instead", words, re.I):
        return 0
    if re.search(r"context", words, re.I):  # its numbers are those of the whole context
        return sent.cap // 2
    numbers = [int(number) for number in re.findall(r"(?<![\w.-])\d{2,7}(?![\w.]*[a-z-])", words, re.I)]
    return max((number for number in numbers if number < sent.cap), default=sent.cap // 2)
