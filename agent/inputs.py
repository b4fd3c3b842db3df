"""Input of a graph from outside: validated once, before the first node, and completed.

Not covered: images within messages, which are refused; and what a graph around this one calls its keys.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages, messages_from_dict
from langgraph.types import Command
from pydantic import BaseModel

from pleinair.agent.state import Input, check_prompt, plain
from pleinair.tools.registry import did_you_mean
from pleinair.tools.types import BadInput, Budget, ImageOptions

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from pleinair.agent.context import Context

_WANTED = "wanted a dict such as {'prompt': 'a finch in the snow'}"
_OPTIONS = tuple(ImageOptions.model_fields)


def read_input(
    schema: type[Input],
    values: Any,
    context: Context,
    config: RunnableConfig | None = None,
    *,
    is_node: bool = False,
) -> Any:
    """Return the input of a run as plain JSON, with a run id and a seed of its own if it has none.

    Options of the image may stand beside the prompt instead of under `image`, and the last user message of
    `messages` may be the prompt. None and a `Command`, which continue a thread, are returned as they are.

    Limits of the input come before the context's budget. The run id is that of `config` if it has one, so
    that a server's retry uses the same images. With `is_node`, `values` is the state of a graph around this
    one; its other keys are left out.

    Raises:
        BadInput: an unknown key, or a value of a wrong type or range.
    """
    if values is None or isinstance(values, Command):
        return values
    tree = _as_dict(values)
    accepted = list(schema.model_fields)
    if is_node:
        names = {*accepted, *_OPTIONS, "messages"}
        tree = {key: value for key, value in tree.items() if key in names and value is not None}
    tree = _with_prompt(tree, accepted, is_node)
    _refuse_unknown(tree, accepted)
    tree = _with_options(tree)
    if isinstance(prompt := tree.get("prompt"), str):
        check_prompt(prompt)
    return _completed(_validated(schema, tree), context, config)


def _as_dict(values: Any) -> dict[str, Any]:
    if isinstance(values, BaseModel):
        return {name: getattr(values, name) for name in values.model_fields_set}
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        return dict(vars(values))
    if not isinstance(values, dict):
        raise BadInput(f"input: {str(values)[:80]!r} of type {type(values).__name__}; {_WANTED}")
    return dict(values)


def _with_prompt(tree: dict[str, Any], accepted: Sequence[str], is_node: bool) -> dict[str, Any]:
    """Return an input whose prompt is the text of the last user message, if it has messages only."""
    if "messages" not in tree or ("messages" in accepted and "prompt" in tree):
        return tree
    others = {key: value for key, value in tree.items() if key != "messages"}
    if "prompt" in tree:
        if is_node:
            return others
        raise BadInput("input: both prompt and messages; wanted one of them")
    return others | {"prompt": _prompt_of(_messages(tree["messages"]))}


def _messages(values: Any) -> list[BaseMessage]:
    items = values if isinstance(values, list | tuple) else [values]
    try:
        if items and all(isinstance(item, dict) and "data" in item for item in items):
            return messages_from_dict(list(items))
        return convert_to_messages(items)
    except (ValueError, NotImplementedError, KeyError, TypeError) as error:
        raise BadInput(
            f"messages: {str(values)[:80]!r}; wanted a list of {{'role': 'user', 'content': 'a finch'}}"
        ) from error


def _prompt_of(messages: Sequence[BaseMessage]) -> str:
    user = [message for message in messages if isinstance(message, HumanMessage)]
    if not user:
        raise BadInput("messages: none is the user's; the last one of the role 'user' is the prompt")
    blocks = user[-1].content_blocks
    others = sorted({block["type"] for block in blocks} - {"text"})
    if others:
        raise BadInput(f"messages: {others[0]} in the user's last one; accepted: text")
    return str(user[-1].text)


def _refuse_unknown(tree: dict[str, Any], accepted: Sequence[str]) -> None:
    choices = [*accepted, *_OPTIONS, *({"messages"} - set(accepted))]
    for key in tree:
        if key not in accepted and key not in _OPTIONS:
            hint = did_you_mean(str(key), choices)
            raise BadInput(f"input: unknown key {key!r}; accepted: {', '.join(choices)}.{hint}")


def _with_options(tree: dict[str, Any]) -> dict[str, Any]:
    """Return an input with the options of the image under `image`."""
    options = {key: tree[key] for key in _OPTIONS if key in tree}
    if not options:
        return tree
    image = plain(tree.get("image", {}))
    if not isinstance(image, dict):
        raise BadInput(f"image = {image!r}: must be a table of options: {', '.join(_OPTIONS)}")
    for key in options:
        if image.get(key) not in (None, options[key]):
            raise BadInput(f"{key} = {options[key]!r}: image.{key} is {image[key]!r}; wanted one of them")
    rest = {key: value for key, value in tree.items() if key not in _OPTIONS}
    return rest | {"image": image | options}


def _validated(schema: type[Input], tree: dict[str, Any]) -> dict[str, Any]:
    """Return an input as JSON; "7" is no number."""
    values: dict[str, Any] = plain(tree)
    try:
        text = json.dumps(values)
    except TypeError:  # Python objects, which only some fields take
        schema.model_validate(values)
    else:
        schema.model_validate_json(text, strict=True)
    return values


def _completed(values: dict[str, Any], context: Context, config: RunnableConfig | None) -> dict[str, Any]:
    """Return an input with a random seed, a run id and the context's budget where it has none."""
    run_id = str((config or {}).get("run_id") or uuid.uuid4())
    completed = {"seed": secrets.randbelow(2**32), "run_id": run_id, **values}
    if context.budget != Budget():
        completed["budget"] = context.budget.model_dump(mode="json") | values.get("budget", {})
    return completed
