"""Fields and images of an edit: parts of a form, or JSON with data URLs. Nothing is retrieved."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import UploadFile

from pleinair.app.server.v1.errors import ApiFault

IMAGE = re.compile(r"image(\[[0-9]{0,3}\])?")  # parts of a form, in order
LISTS = ("images", "image")  # of a JSON object
IGNORED = ("user", "safety_identifier", "moderation", "metadata")  # may have keys in brackets
MOST_FILES, MOST_FIELDS = 64, 64
SENT = "Send a data URL, or multipart/form-data with a part `image` for each image."
FILE = {"type": "string", "format": "binary"}
REFERENCE = {  # as OpenAI describes it
    "type": "object",
    "properties": {"image_url": {"type": "string", "pattern": "^data:image/[a-z]+;base64,"}},
    "required": ["image_url"],
}
PARTS: dict[str, dict[str, Any]] = {  # of the description, by content type
    "multipart/form-data": {
        "image": {"type": "array", "items": FILE, "minItems": 1, "maxItems": 16},
        "mask": FILE,
    },
    "application/json": {
        "images": {"type": "array", "items": REFERENCE, "minItems": 1, "maxItems": 16},
        "mask": REFERENCE,
    },
}


@dataclass
class Files:
    """Files of a request: input images in order, and which part of the first one changes."""

    images: list[bytes] = field(default_factory=list)
    mask: bytes | None = None


def of_json(values: dict[str, Any]) -> tuple[dict[str, Any], Files]:
    """Return the other fields of a JSON object, and its files; raises `ApiFault`."""
    files = Files()
    for name in LISTS:
        items = values.get(name)
        for number, item in enumerate(items if isinstance(items, list) else [items]):
            if item is not None:
                files.images.append(_embedded(item, f"{name}[{number}]" if items is not item else name))
    if (mask := values.get("mask")) is not None:
        files.mask = _embedded(mask, "mask")
    _require_images(files)
    return {name: value for name, value in values.items() if name not in (*LISTS, "mask")}, files


def _embedded(item: Any, param: str) -> bytes:
    """Return the bytes of a data URL, which is an item or its `image_url`."""
    value = item.get("image_url", item.get("url")) if isinstance(item, dict) else item
    address = value if isinstance(value, str) else ""
    head, _, text = address.partition(",")
    if not head.startswith("data:"):
        fault = "nothing is retrieved by address or id; images must come with the request"
        raise ApiFault(f"{param}: {fault}", "unsupported_value", param=param, remedy=SENT)
    try:
        if not head.endswith(";base64"):
            raise ValueError("no base64")
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        fault = "must be data:image/…;base64, and base64 after it"
        raise ApiFault(f"{param} = {address[:40]!r}: {fault}", "invalid_value", param=param) from error


async def of_form(request: Request) -> tuple[dict[str, Any], Files]:
    """Return the fields of a form, and its files; raises `ApiFault`."""
    values: dict[str, Any] = {}
    files = Files()
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as form:
        for name, value in form.multi_items():
            is_image = IMAGE.fullmatch(name) is not None
            if isinstance(value, UploadFile) and is_image:
                files.images.append(await value.read())
            elif isinstance(value, UploadFile) and name == "mask" and files.mask is None:
                files.mask = await value.read()
            elif isinstance(value, UploadFile) or is_image or name == "mask":
                raise _misplaced(name, is_image)
            elif value:  # an empty field counts as omitted
                _set(values, name, value)
    _require_images(files)
    return values, files


def _require_images(files: Files) -> None:
    if not files.images:
        raise ApiFault("image: required, but missing", "missing_required_parameter", param="image")


def _misplaced(name: str, is_image: bool) -> ApiFault:
    if is_image or name == "mask":
        param, fault = ("image", "must be a file") if is_image else ("mask", "must be one file")
        return ApiFault(f"{name}: {fault}", "invalid_value", param=param)
    return ApiFault(f"{name[:60]}: no such file is used", "unknown_parameter", param=name)


def _set(values: dict[str, Any], name: str, value: str) -> None:
    """Set a field of a form, or a key of one, such as `pleinair[seed]`."""
    table, bracket, key = name.partition("[")
    if table in IGNORED:
        return
    if name == "pleinair":
        try:
            values["pleinair"] = from_json(value)
        except ValueError as error:
            raise ApiFault("pleinair: must be a JSON object", "invalid_value", param="pleinair") from error
    elif table == "pleinair" and bracket and isinstance(values.setdefault(table, {}), dict):
        values[table][key.removesuffix("]")] = value
    else:
        values[name] = value
