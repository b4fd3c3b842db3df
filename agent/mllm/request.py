"""What is sent: schemas that every server takes, and images no larger than they need be."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from langchain_core.messages import BaseMessage, SystemMessage
from PIL import Image

from pleinair.tools.http.support import Answers, Support
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Value

_Block = str | dict[Any, Any]
ImageForm = Literal["jpeg", "png"]

_SMALL = 32 * 1024  # bytes up to which an image is sent as it is
_QUALITY = 90  # of JPEG, with colours at full resolution

_SCHEMA = "Answer with one JSON object that fits this JSON schema, and with nothing else: "
# The words of JSON Schema that OpenAI's strict mode, vLLM, Ollama and llama.cpp all take.
_PORTABLE = ("type", "description", "enum", "const", "minimum", "maximum", "minItems", "maxItems")


def described(schema: type[Value]) -> dict[str, Any]:
    """Return a schema with name and description, in portable words; the answer is checked in full anyway.

    Definitions are written out where they are used, because several servers refuse `$ref`; what describes
    them is for readers of the code.
    """
    full = schema.model_json_schema()
    description = full.pop("description", "")  # sent once
    return {
        "name": schema.__name__,
        "description": description,
        "schema": _portable(full, full.get("$defs", {})),
        "strict": True,
    }


def _portable(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Keep what every server takes; every field is required, and a tuple is an array of its first type."""
    if "$ref" in schema:
        definition = definitions[schema["$ref"].rpartition("/")[2]]
        return _portable({key: definition[key] for key in definition if key != "description"}, definitions)
    portable = {word: schema[word] for word in _PORTABLE if word in schema}
    if "properties" in schema:
        properties = schema["properties"].items()
        portable["properties"] = {name: _portable(part, definitions) for name, part in properties}
        portable["required"] = list(schema["properties"])
        portable["additionalProperties"] = False
    if choices := schema.get("anyOf"):
        portable["anyOf"] = [_portable(part, definitions) for part in choices]
    if items := schema.get("items") or (schema.get("prefixItems") or [None])[0]:
        portable["items"] = _portable(items, definitions)
    return portable


def answer_arguments(form: dict[str, Any], answers: Answers, support: Support) -> dict[str, Any]:
    """Return the arguments of a call that ask for an answer in a form, as `described` returns it."""
    form = {key: value for key, value in form.items() if key not in support.without}
    if answers == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    if answers == "json_object":
        return {"response_format": {"type": "json_object"}}
    if answers == "text":
        return {}
    function = {"parameters" if key == "schema" else key: value for key, value in form.items()}
    named = {"type": "function", "function": {"name": form["name"]}}
    choice = named if support.tool_choice == "named" else support.tool_choice
    return {
        "tools": [{"type": "function", "function": function}],
        **({} if choice == "none" else {"tool_choice": choice}),
        **({} if "parallel_tool_calls" in support.without else {"parallel_tool_calls": False}),
    }


def with_schema(messages: Sequence[BaseMessage], form: dict[str, Any]) -> list[BaseMessage]:
    """Append to the instruction the schema of the answer, for a server that may ignore it elsewhere."""
    schema = json.dumps({"description": form["description"], **form["schema"]}, ensure_ascii=False)
    text = f"{_SCHEMA}{schema}"
    first = messages[0]
    if isinstance(first, SystemMessage):
        return [SystemMessage(f"{first.text}\n\n{text}"), *messages[1:]]
    return [SystemMessage(text), *messages]


def with_cache_marks(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the first message of a payload and its newest text as ends of what a provider may cache.

    Anthropic's models cache by such marks only, here in the form of OpenRouter and LiteLLM.
    """
    marked = list(messages)
    for place in {0, len(messages) - 1}:
        blocks = _parts(messages[place]["content"])
        texts = [number for number, block in enumerate(blocks) if block.get("text")]
        if texts:
            block = {**blocks[texts[-1]], "cache_control": {"type": "ephemeral"}}
            content = [*blocks[: texts[-1]], block, *blocks[texts[-1] + 1 :]]
            marked[place] = {**messages[place], "content": content}
    return marked


def merged_roles(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages of a payload for a model without a system role, and whose roles must alternate."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message["role"] in ("system", "developer") else message["role"]
        plain = role in ("user", "assistant") and "tool_calls" not in message
        if merged and plain and merged[-1]["role"] == role and "tool_calls" not in merged[-1]:
            content = [*_parts(merged[-1]["content"]), *_parts(message["content"])]
            merged[-1] = {"role": role, "content": content}
        else:
            merged.append({**message, "role": role})
    return merged


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": str(content or "")}]


def has_images(messages: Sequence[BaseMessage]) -> bool:
    """Return whether any message has an image."""
    blocks = (block for message in messages if isinstance(message.content, list) for block in message.content)
    return any(isinstance(block, dict) and block.get("type") in ("image", "image_url") for block in blocks)


def scaled_down(
    messages: Sequence[BaseMessage], side: int, detail: str | None, form: ImageForm = "png"
) -> list[BaseMessage]:
    """Copy messages with every image at most `side` pixels long, to be read at `detail` if any.

    An image over `_SMALL` bytes is sent in `form`.
    """
    return [
        message.model_copy(
            update={"content": [_to_send(block, side, detail, form) for block in message.content]}
        )
        if isinstance(message.content, list)
        else message
        for message in messages
    ]


def _to_send(block: _Block, side: int, detail: str | None, form: ImageForm) -> _Block:
    """Convert an image block to the form that takes a detail."""
    if not isinstance(block, dict) or block.get("type") != "image" or "base64" not in block:
        return block
    sent, mime = _fitted(base64.b64decode(block["base64"]), block.get("mime_type", "image/png"), side, form)
    url = f"data:{mime};base64,{base64.b64encode(sent).decode()}"
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


@lru_cache(maxsize=8)  # the tries of a call, and the calls of a conversation, send the same images
def _fitted(data: bytes, mime: str, side: int, form: ImageForm) -> tuple[bytes, str]:
    """Return an image in its form with its type; one that fits already stays byte for byte."""
    form = "png" if len(data) <= _SMALL else form
    with Image.open(io.BytesIO(data)) as image:
        is_large = max(image.size) > side
        if not is_large and (form == "png" or mime == "image/jpeg"):
            return data, mime
        rgb = image.convert("RGB")
        if is_large:
            rgb.thumbnail((side, side), Image.Resampling.LANCZOS)
    if form == "png":
        return encode_png(rgb), "image/png"
    file = io.BytesIO()
    rgb.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue(), "image/jpeg"
