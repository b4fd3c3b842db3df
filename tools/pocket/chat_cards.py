"""Read a question out of a conversation: its arguments, its picture, what it costs in tokens."""

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

from pleinair.tools.types import BadInput, Box

if TYPE_CHECKING:
    from PIL import Image

    from pleinair.tools.pocket.prompts import Request

Arguments = dict[str, Any]
FENCE = re.compile(r"```json\s*(.*?)```", re.DOTALL)
PATCH = 16  # pixels a side of the square that counts as one token


class OutsideGrammar(Exception):
    """The prompt cannot be read; the text says what was wrong."""


def subjects(asked: Arguments) -> list[str]:
    """Read the prompt's subjects, each once; raise as `request` does."""
    return list(dict.fromkeys(request(asked).subjects))


def request(asked: Arguments) -> Request:
    """Read the prompt; raise OutsideGrammar when it cannot be read."""
    from pleinair.tools.pocket.prompts import parse_prompt

    try:
        return parse_prompt(wanted(asked, "prompt"))
    except ValueError as error:
        raise OutsideGrammar(str(error)) from error


def wanted(asked: Arguments, key: str) -> Any:
    """Return an argument of the question; refuse a question without it."""
    if key not in asked:
        raise BadInput(f"The question's JSON has no {key!r}; it has {', '.join(asked) or 'nothing'}.")
    return asked[key]


def card(messages: Sequence[BaseMessage]) -> Arguments:
    """Return the arguments in the last human message that holds exactly one fenced JSON object.

    Raises:
        BadInput: no human message has one, or it is no JSON object.
    """
    for message in reversed(messages):
        found = FENCE.findall(message.text) if isinstance(message, HumanMessage) else []
        if len(found) == 1:
            return _object(found[0])
    raise BadInput("PocketChat wants a human message with exactly one ```json object, and found none.")


def _object(text: str) -> Arguments:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"The question is no JSON ({error}): {text[:80]!r}") from error
    if not isinstance(value, dict):
        raise BadInput(f"The question must be a JSON object, got {text[:80]!r}.")
    return value


def pictures(messages: Sequence[BaseMessage]) -> list[bytes]:
    """Return the bytes of every image block of the conversation, oldest first."""
    blocks = [block for message in messages for block in message.content_blocks]
    return [
        base64.b64decode(block["base64"])
        for block in blocks
        if block["type"] == "image" and "base64" in block
    ]


def picture(messages: Sequence[BaseMessage]) -> bytes | None:
    """Return the newest picture of the conversation, None where there is none."""
    found = pictures(messages)
    return found[-1] if found else None


def open_picture(png: bytes) -> Image.Image:
    """Decode a picture; raise BadInput when its bytes are none."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(png)).convert("RGB")
    except UnidentifiedImageError as error:
        raise BadInput(f"{len(png)} bytes in an image block are no picture that Pillow can read.") from error


def where(box: Box) -> str:
    """Name the place of a box's centre, such as "top left", "right" or "the centre"."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    row = "top" if y < 0.38 else "bottom" if y > 0.62 else ""
    column = "left" if x < 0.38 else "right" if x > 0.62 else ""
    return f"{row} {column}".strip() or "the centre"


def usage(messages: Sequence[BaseMessage], reply: AIMessage) -> UsageMetadata:
    """Count a word as a token, and a picture's every square of 16 × 16 pixels as one."""
    sizes = [open_picture(png).size for png in pictures(messages)]
    seen = sum(math.ceil(width / PATCH) * math.ceil(height / PATCH) for width, height in sizes)
    read = sum(len(message.text.split()) for message in messages) + seen
    written = len(reply.text.split()) + len(json.dumps([call["args"] for call in reply.tool_calls]).split())
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
