"""Last image of a chat, and what a line changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pleinair.app.chat.edits import Edit, Resize, is_scene_edit, read_resize, read_scene_edit
from pleinair.app.chat.thread import IMAGE
from pleinair.app.paths import Paths
from pleinair.app.runs.history import carried
from pleinair.app.runs.prompts import PromptOptions, read_size
from pleinair.app.runs.request import ChatThread
from pleinair.tools.prompt_options import parse_prompt_options
from pleinair.tools.types import MAX_SIDE, BadInput, Capabilities


@dataclass(frozen=True)
class Scene:
    """What the last image was to show."""

    prompt: str
    concepts: list[str]
    width: int  # pixels
    height: int


def last_scene(chat: ChatThread, places: Paths) -> Scene | None:
    """Return the last image that the next request of a chat continues from; None if there is none."""
    from pleinair.agent.react.state import Turn, last_turn_with_image

    turns = carried(chat, places).get("turns", [])
    turn = last_turn_with_image([Turn.model_validate(turn) for turn in turns])
    if turn is None or turn.outcome.best is None:
        return None
    request = turn.outcome.best.request
    return Scene(turn.wish, [concept.name for concept in turn.concepts], request.width, request.height)


def read_edit(
    line: str, scene: Scene | None, overrides: Mapping[str, Any], capabilities: Capabilities
) -> Edit:
    """Return the request that a line means: as it is, or as a change of the last image.

    What is added, removed or changed in size is worked out by rules.

    Raises:
        BadInput: there is no image to change, or the change is not possible.
    """
    parsed = parse_prompt_options(line)
    if resize := read_resize(line):
        size = _size(resize, scene, capabilities)
        changed = {name: side for name, side in size.items() if overrides.get(f"{IMAGE}{name}") != side}
        return Edit(scene.prompt if scene else "", changed)
    if scene and parsed.options and not parsed.prompt:  # such as "--seed 7"
        return Edit(f"{scene.prompt} {line}")
    if not is_scene_edit(line):
        return Edit(line)
    if scene is None:
        raise BadInput("there is no image to change yet", "Describe what is to be seen.")
    return Edit(read_scene_edit(line, scene.prompt, scene.concepts) or line)


def _size(resize: Resize, scene: Scene | None, capabilities: Capabilities) -> dict[str, int]:
    """Return the sides; raises `BadInput` if there is no image to scale."""
    if resize.options:
        return read_size(PromptOptions(resize.options), capabilities)
    if scene is None:
        raise BadInput("there is no image to scale yet", "Describe what is to be seen.")
    unit, sides = capabilities.multiple_of, {"width": scene.width, "height": scene.height}
    return {
        name: min(max(round(side * resize.factor / unit), 1) * unit, MAX_SIDE // unit * unit)
        for name, side in sides.items()
    }
