"""What is sent: schemas that every server takes, and pictures no larger than they need be."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from PIL import Image

from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Value

Block = str | dict[Any, Any]

# The words of JSON Schema that OpenAI's strict mode, vLLM, Ollama and llama.cpp all take.
TAKEN = ("type", "description", "enum", "const", "minimum", "maximum", "minItems", "maxItems")


def described(schema: type[Value]) -> dict[str, Any]:
    """Name, describe and portably spell a schema; the answer is checked against the true one anyway."""
    spelled = schema.model_json_schema()
    definitions = {name: _portable(one) for name, one in spelled.get("$defs", {}).items()}
    return {
        "name": schema.__name__,
        "description": spelled.get("description", ""),
        "schema": _portable(spelled) | ({"$defs": definitions} if definitions else {}),
        "strict": True,
    }


def _portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Keep what every server takes; every field is required, and a tuple is an array of its first type."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # OpenAI takes nothing beside it
    kept = {word: schema[word] for word in TAKEN if word in schema}
    if "properties" in schema:
        kept["properties"] = {name: _portable(one) for name, one in schema["properties"].items()}
        kept["required"] = list(schema["properties"])
        kept["additionalProperties"] = False
    if choices := schema.get("anyOf"):
        kept["anyOf"] = [_portable(one) for one in choices]
    if items := schema.get("items") or (schema.get("prefixItems") or [None])[0]:
        kept["items"] = _portable(items)
    return kept


def fitted(messages: Sequence[BaseMessage], side: int, detail: str) -> list[BaseMessage]:
    """Copy messages with every picture at most `side` pixels long, to be read at `detail`."""
    return [
        message.model_copy(
            update={"content": [_block_to_send(block, side, detail) for block in message.content]}
        )
        if isinstance(message.content, list)
        else message
        for message in messages
    ]


def _block_to_send(block: Block, side: int, detail: str) -> Block:
    """Turn a picture into the form that takes a detail; leave anything else."""
    if not isinstance(block, dict) or block.get("type") != "image" or "base64" not in block:
        return block
    mime, data = _smaller(block.get("mime_type", "image/png"), block["base64"], side)
    return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}", "detail": detail}}


def _smaller(mime: str, data: str, side: int) -> tuple[str, str]:
    """Scale a picture down to `side`; a smaller one goes as it is, byte for byte."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        if max(picture.size) <= side:
            return mime, data
        small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return "image/png", base64.b64encode(encode_png(small)).decode()
