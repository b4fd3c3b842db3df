"""Trace the path of a prompt: `python -m tests.support.prompt_path [PROMPT]`.

Runs `pleinair draw` with the pocket profile in a temporary home and prints every file and function of the
project that receives the prompt, or a value that holds it, before the first pipeline call. Files that only
observe a run (events, terminal) and the decomposition, which runs beside the draft, are listed apart. A
function counts when one of its arguments holds the prompt; what is stored and read back later is not seen.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
LAYERS = ("tools", "agent", "graphs", "app")
PROMPT = "a hoopoe in the snow"
MOST_ITEMS = 64  # in a collection that is searched
DEPTH = 4  # levels of fields and items in which the prompt is searched
OBSERVERS = (
    "app/cli/live.py",
    "app/cli/terminal.py",
    "app/texts.py",
    "app/runs/calls.py",
    "app/runs/events.py",
    "app/runs/items.py",  # the checkpoint of a step
    "app/runs/notes.py",
    "app/storyboard/",
    "app/trace/",
)
BESIDE = ("tools/decompose.py", "tools/mllm/", "tools/pocket/")  # of the decomposition, parallel to the draft


def holds(value: Any, prompt: str, depth: int = DEPTH) -> bool:
    """Return whether a value is the prompt, or holds it in a text, item or field."""
    if isinstance(value, str):
        return prompt in value
    if depth == 0 or value is None or isinstance(value, int | float | bytes | type):
        return False
    return any(holds(part, prompt, depth - 1) for part in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    """Yield the items of a small collection, or the fields of a value of ours; engines are not searched."""
    if isinstance(value, Mapping) and len(value) <= MOST_ITEMS:
        yield from list(value.values())
    elif isinstance(value, list | tuple) and len(value) <= MOST_ITEMS:
        yield from list(value)
    elif isinstance(value, BaseModel) or is_dataclass(value):
        yield from list(getattr(value, "__dict__", {}).values())


@dataclass
class PromptPath:
    """The files and functions that a prompt passes, in the order of their first call."""

    prompt: str
    files: dict[str, list[str]] = field(default_factory=dict)  # file -> functions
    beside: dict[str, list[str]] = field(default_factory=dict)
    observers: dict[str, list[str]] = field(default_factory=dict)
    checks: Counter[str] = field(default_factory=Counter)  # validations of the prompt by function
    reached: bool = False  # the pipeline has been called

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        """Record a call; for `sys.setprofile`."""
        if event != "call" or self.reached:
            return
        path = frame.f_code.co_filename
        if "/diffusers/pipelines/" in path and frame.f_code.co_name == "__call__":
            self.reached = True
            sys.setprofile(None)
        elif file := _own_file(path):
            self._call(file, frame)

    def _call(self, file: str, frame: FrameType) -> None:
        code = frame.f_code
        parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if code.co_name == "<module>" or not any(
            holds(frame.f_locals.get(name), self.prompt) for name in parameters
        ):
            return
        if code.co_name == "check_prompt":
            self.checks[file] += 1
        beside = file.startswith(BESIDE) or _beside(frame)
        group = self.observers if file.startswith(OBSERVERS) else self.beside if beside else self.files
        functions = group.setdefault(file, [])
        if code.co_qualname not in functions:
            functions.append(code.co_qualname)


@cache
def _own_file(path: str) -> str:
    real = Path(path).resolve()
    if not real.is_relative_to(ROOT):
        return ""
    file = real.relative_to(ROOT)
    return str(file) if file.parts[0] in LAYERS else ""


def _beside(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "decompose":
            return True
        frame = frame.f_back
    return False


def trace(prompt: str = PROMPT) -> PromptPath:
    """Draw a prompt in a temporary home and return the path that it took.

    Raises RuntimeError if no pipeline was called.
    """
    path = PromptPath(prompt)
    arguments = ["pleinair", "draw", prompt, "--seed", "1", "--max-attempts", "1"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(PLEINAIR_HOME=f"{folder}/home", XDG_CONFIG_HOME=f"{folder}/config")
        sys.argv = [*arguments, "--out", f"{folder}/out"]
        import open_clip  # noqa: F401 (imported here, as imports take long under a profile)
        from diffusers import Flux2KleinPipeline  # noqa: F401

        from pleinair.app.cli.main import main

        threading.setprofile(path.profile)
        sys.setprofile(path.profile)
        try:
            main()
        except SystemExit:
            pass
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    if not path.reached:
        raise RuntimeError("no pipeline was called")
    return path


def main() -> None:
    """Print the path of the prompt that the command line names."""
    path = trace(*sys.argv[1:2])
    for title, group in (("path", path.files), ("beside", path.beside), ("observers", path.observers)):
        sys.stdout.write(f"{title}: {len(group)} files, {sum(map(len, group.values()))} functions\n")
        for file, functions in group.items():
            sys.stdout.write(f"  {file}: {', '.join(functions)}\n")
    sys.stdout.write(f"validations of the prompt: {sum(path.checks.values())}\n")


if __name__ == "__main__":
    main()
