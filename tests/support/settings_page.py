"""Write docs/settings.md from the settings' own types: `make docs`.

The meaning of a key is the description of its field; that of a backend without a settings model is in the
`Args` section of its class. `tests/test_docs.py` fails when the page is out of date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools import registry

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
KINDS: tuple[registry.Kind, ...] = ("generator", "encoder", "mllm")
COLUMNS = ("| key | accepts | default | meaning |", "| --- | --- | --- | --- |")
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "multiple_of": "multiple of"}
HEAD = """# Settings

<!-- Generated from the code by `make docs`; do not edit. -->

From strongest to weakest: `--set key=value` (or `overrides` in Python), the environment
(`PLEINAIR_SECTION__KEY`), `./pleinair.toml`, the user's `pleinair.toml`, the profile (`--profile NAME`, or
`profile = "NAME"`), the defaults below. Values are TOML; a value that is not TOML is a string. A table that
names another backend replaces the weaker table as a whole. Unknown keys and bad values are refused with
what is accepted. Profiles of your own are TOML files in `profiles/` of the configuration folder, or any
path that ends in `.toml`; `extends = "NAME"` names the profile that they change.
"""


def page() -> str:
    """Return the whole page."""
    lines = [HEAD, "## Tables", "", *COLUMNS, *_rows("", Settings)]
    for kind in KINDS:
        lines += [
            "",
            f"## Backends: `{kind}`",
            "",
            f"`{kind}.backend` names one; its arguments are the other keys.",
        ]
        for name in registry.names(kind):
            make = registry.resolve(kind, name)
            summary = (inspect.getdoc(make) or "").partition("\n\n")[0].replace("\n", " ")
            lines += ["", f'### `{kind}.backend = "{name}"`', "", summary, "", *COLUMNS, *_arguments(make)]
    return "\n".join(lines) + "\n"


def _rows(table: str, model: type[BaseModel]) -> Iterator[str]:
    for key, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not BackendChoice:
            yield from _rows(f"{table}{key}.", inner)
        elif inner is not BackendChoice:
            default = _default(info.get_default(call_default_factory=True))
            fields = [base.model_fields.get(key) for base in model.__mro__ if issubclass(base, BaseModel)]
            texts = [field.description for field in fields if field and field.description]
            meaning = " ".join("".join(texts[:1]).split())
            yield f"| `{table}{key}` | {_accepted(info)} | {default} | {meaning} |"


def _arguments(make: Callable[..., Any]) -> Iterator[str]:
    if model := getattr(make, "settings_model", None):
        yield from _rows("", model)
        return
    texts = _argument_texts(make)
    for name, parameter in inspect.signature(make).parameters.items():
        kind = _plain(str(parameter.annotation).strip("'\""))
        yield f"| `{name}` | {kind} | {_default(parameter.default)} | {texts.get(name, '')} |"


def _argument_texts(make: Callable[..., Any]) -> dict[str, str]:
    """Return what the `Args` sections of a function, or of a class and its bases, say of each argument."""
    owners = reversed(make.__mro__) if inspect.isclass(make) else (make,)
    docs = [doc for owner in owners for doc in (owner.__doc__, getattr(owner.__init__, "__doc__", "")) if doc]
    texts: dict[str, str] = {}
    for doc in docs:
        section = inspect.cleandoc(doc).partition("Args:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def _accepted(info: FieldInfo) -> str:
    is_union = get_origin(info.annotation) in (Union, UnionType)
    names, metadata = [], list(info.metadata)
    for choice in get_args(info.annotation) if is_union else (info.annotation,):
        if get_origin(choice) is Annotated:
            choice, *constraints = get_args(choice)
            metadata += [bound for item in constraints for bound in getattr(item, "metadata", [item])]
        names.append(choice.__name__ if isinstance(choice, type) else str(choice))
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in metadata
        for name, sign in SIGNS.items()
        if getattr(bound, name, None) is not None
    ]
    return ", ".join([_plain(" | ".join(names)), *bounds])


def _plain(annotation: str) -> str:
    """Return an annotation in words that fit into a table."""
    text = re.sub(r"\b(\w+\.)+", "", annotation).replace("NoneType", "None")
    text = re.sub(r"Literal\[([^\]]*)\]", lambda choices: choices[1].replace("'", '"'), text)
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", text)
    return text.replace("|", "\\|")


def _default(value: Any) -> str:
    if value in (PydanticUndefined, inspect.Parameter.empty):
        return "required"
    if value is None or "factory" in repr(value):
        return ""
    return f"`{value!r}`".replace("'", '"').replace("True", "true").replace("False", "false")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
