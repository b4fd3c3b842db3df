"""What is sent: schemas that every server takes, and images no larger than they need be."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from PIL import Image

from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Value

_Block = str | dict[Any, Any]

# The words of JSON Schema that OpenAI's strict mode, vLLM, Ollama and llama.cpp all take.
_PORTABLE = ("type", "description", "enum", "const", "minimum", "maximum", "minItems", "maxItems")


def described(schema: type[Value]) -> dict[str, Any]:
    """Return a schema with name and description, in portable words; the answer is checked in full anyway."""
    full = schema.model_json_schema()
    definitions = {name: _portable(part) for name, part in full.get("$defs", {}).items()}
    return {
        "name": schema.__name__,
        "description": full.get("description", ""),
        "schema": _portable(full) | ({"$defs": definitions} if definitions else {}),
        "strict": True,
    }


def _portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Keep what every server takes; every field is required, and a tuple is an array of its first type."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # OpenAI takes nothing beside it
    portable = {word: schema[word] for word in _PORTABLE if word in schema}
    if "properties" in schema:
        portable["properties"] = {name: _portable(part) for name, part in schema["properties"].items()}
        portable["required"] = list(schema["properties"])
        portable["additionalProperties"] = False
    if choices := schema.get("anyOf"):
        portable["anyOf"] = [_portable(part) for part in choices]
    if items := schema.get("items") or (schema.get("prefixItems") or [None])[0]:
        portable["items"] = _portable(items)
    return portable


def scaled_down(messages: Sequence[BaseMessage], side: int, detail: str) -> list[BaseMessage]:
    """Copy messages with every image at most `side` pixels long, to be read at `detail`."""
    return [
        message.model_copy(update={"content": [_to_send(block, side, detail) for block in message.content]})
        if isinstance(message.content, list)
        else message
        for message in messages
    ]


def _to_send(block: _Block, side: int, detail: str) -> _Block:
    """Convert an image block to the form that takes a detail; a smaller image is sent byte for byte."""
    if not isinstance(block, dict) or block.get("type") != "image" or "base64" not in block:
        return block
    mime, data = block.get("mime_type", "image/png"), block["base64"]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        if max(image.size) > side:
            small = image.convert("RGB")
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            mime, data = "image/png", base64.b64encode(encode_png(small)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}", "detail": detail}}
