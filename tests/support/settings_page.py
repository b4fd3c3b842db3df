"""Write docs/settings.md from the settings' own types: `make docs`.

The meaning of a key is the description of its field, or the comment behind the field or parameter, or its
line in the `Args` section of a docstring. `tests/test_docs.py` fails when the page is out of date or a key
has no meaning.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pleinair.app.settings import BackendChoice, Settings
from pleinair.app.toml.trust import HARMLESS
from pleinair.tools import registry
from pleinair.tools.arguments import model_of

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

**A `pleinair.toml` in a folder that somebody else made** could send one of your keys to a foreign server,
spend money, or read and write elsewhere. In the current folder it may therefore set only
{harmless}; any other key is refused until you have read the file and run
`pleinair trust`, once for each version of it. `PLEINAIR_TRUST=none` leaves such keys out instead, and
`PLEINAIR_TRUST=all` trusts every folder, for containers. The user's own file is always obeyed.
`pleinair settings`, and `pleinair draw … --dry-run`, print each setting that is not the profile's and where
it was set.
"""


def page() -> str:
    """Return the whole page."""
    harmless = ", ".join(f"`{name}`" for name in HARMLESS)
    lines = [HEAD.replace("{harmless}", harmless), "## Tables", "", *COLUMNS, *_rows("", Settings)]
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
    meanings = _meanings(model)
    for key, info in model.model_fields.items():
        inner = model_of(info.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not BackendChoice:
            yield from _rows(f"{table}{key}.", inner)
        elif info.annotation is not BackendChoice and key in meanings:  # LangChain's own fields are not in it
            default = _default(info.get_default(call_default_factory=True))
            yield f"| `{table}{key}` | {_accepted(info)} | {default} | {meanings[key]} |"


def _arguments(make: Callable[..., Any]) -> Iterator[str]:
    model = getattr(make, "settings_model", make)
    if inspect.isclass(model) and issubclass(model, BaseModel):
        yield from _rows("", model)
        return
    function = make.__init__ if inspect.isclass(make) else make
    meanings, hints = _meanings(make), get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(make).parameters.items():
        accepted = _accepted(FieldInfo.from_annotation(hints[name]))
        yield f"| `{name}` | {accepted} | {_default(parameter.default)} | {meanings[name]} |"


def _meanings(make: Callable[..., Any]) -> dict[str, str]:
    """Return the meaning of each parameter of a function, or of each field of a class and its bases."""
    bases = reversed(make.__mro__) if inspect.isclass(make) else [make]
    texts: dict[str, str] = {}
    for owner in bases:
        if owner.__module__.startswith("pleinair."):
            fields = getattr(owner, "model_fields", {})
            described = {name: info.description for name, info in fields.items() if info.description}
            comments = {name: text for name, text in _comments(owner).items() if text or name not in texts}
            texts |= comments | described | _argument_texts(owner)
    return texts


def _comments(owner: Callable[..., Any]) -> dict[str, str]:
    """Return the comment, or "", behind each field of a class or parameter of a function."""
    source = textwrap.dedent(inspect.getsource(owner))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    definition = ast.parse(source).body[0]
    lines: dict[str, int | None] = {}
    if isinstance(definition, ast.FunctionDef):
        arguments = (*definition.args.args, *definition.args.kwonlyargs)
        lines = {node.arg: node.end_lineno for node in arguments}
    for node in definition.body if isinstance(definition, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines[node.target.id] = node.end_lineno
    return {name: comments.get(line or 0, "").lstrip("# ") for name, line in lines.items()}


def _argument_texts(owner: Callable[..., Any]) -> dict[str, str]:
    """Return what the `Args` section of a function or class says of each argument."""
    docs = (owner.__doc__ or "", getattr(owner.__init__, "__doc__", "") or "")
    sections = [inspect.cleandoc(doc).partition("Args:\n")[2].partition("\n\n")[0] for doc in docs]
    pairs = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", "\n".join(sections), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in pairs}


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
    text = re.sub(r"\b(?:tuple|Sequence)\[(\w+)(?:, \.\.\.)?\]", r"list of \1", text)
    text = re.sub(r"\b(?:dict|Mapping)\[str, Any\]", "table", text)
    return text.replace("|", "\\|")


def _default(value: Any) -> str:
    if value in (PydanticUndefined, inspect.Parameter.empty):
        return "required"
    if value is None or "factory" in repr(value):
        return ""
    return f"`{value!r}`".replace("'", '"').replace("True", "true").replace("False", "false")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
