"""Payload of an MLLM call to the pocket chat model: its JSON arguments, its images, its tokens."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata

from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from PIL import Image

Json = dict[str, Any]
_FENCE = re.compile(r"```json\s*(.*?)```", re.DOTALL)
_WHOLE = re.compile(r"\A```json\s*(\{.*\})\s*```\Z", re.DOTALL)  # a prompt in the JSON may have fences
_PATCH = 16  # pixels a side of the square that counts as one token


def read_payload(messages: Sequence[BaseMessage]) -> Json:
    """Return the payload in the last human message that is, or holds exactly one, fenced JSON object.

    Raises:
        BadInput: no human message has one, or it is not a JSON object.
    """
    for message in reversed(messages):
        text = message.text.strip() if isinstance(message, HumanMessage) else ""
        blocks = [block for block in _WHOLE.findall(text) if _is_json(block)] or _FENCE.findall(text)
        if len(blocks) == 1:
            return _parse_object(blocks[0])
    raise BadInput("No human message has exactly one ```json object; send the arguments of the call in one.")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parse_object(text: str) -> Json:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"The payload of the call is not valid JSON ({error}): {text[:80]!r}") from error
    if not isinstance(value, dict):
        raise BadInput(f"The payload of the call must be a JSON object, got {text[:80]!r}.")
    return value


def argument(payload: Json, key: str) -> Any:
    """Return an argument of the payload; raise BadInput if it is missing."""
    if key not in payload:
        raise BadInput(f"The payload of the call has no {key!r}; it has {', '.join(payload) or 'nothing'}.")
    return payload[key]


def images_in(messages: Sequence[BaseMessage]) -> list[bytes]:
    """Return the bytes of every image block of the messages, oldest first."""
    blocks = [block for message in messages for block in message.content_blocks]
    return [
        base64.b64decode(block["base64"])
        for block in blocks
        if block["type"] == "image" and "base64" in block
    ]


def decode_image(data: bytes) -> Image.Image:
    """Decode an image as RGB; raise BadInput if Pillow cannot read the bytes."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except UnidentifiedImageError as error:
        raise BadInput(f"The {len(data)} bytes of an image block are no image that Pillow reads.") from error


def usage(messages: Sequence[BaseMessage], reply: AIMessage) -> UsageMetadata:
    """Count the tokens: each word is one, and each square of 16 × 16 pixels of an image."""
    sizes = [decode_image(data).size for data in images_in(messages)]
    squares = sum(math.ceil(width / _PATCH) * math.ceil(height / _PATCH) for width, height in sizes)
    read = sum(len(message.text.split()) for message in messages) + squares
    written = len(reply.text.split()) + len(json.dumps([call["args"] for call in reply.tool_calls]).split())
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
