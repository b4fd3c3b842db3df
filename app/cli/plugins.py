"""Commands of other packages: entry points of the group `pleinair.command`, read when they are needed.

An entry point names a function with typer's annotations, or a `typer.Typer`. A built-in command is not
replaced. One that cannot be loaded is a line of warning in the list of commands, and an error if it is
called.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from pleinair.app.cli.terminal import error_lines, leave, say
from pleinair.tools.registry import BrokenPlugin, names, resolve


# `Any` stands for click's classes: newer versions of typer have a copy of click, older ones import it
class PluginGroup(TyperGroup):
    """Group whose commands are its own and those of plug-ins; nothing is loaded for its own ones."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands that can be loaded, the plug-ins' last."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in names("command") if name not in own and self._load(name))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, a plug-in's only if there is none of that name; None if there is neither."""
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        if cmd_name not in names("command"):
            return None
        return self._load(cmd_name) or leave("failed")

    def _load(self, name: str) -> Any:
        """Return a plug-in's command; print a line and return None if it cannot be loaded."""
        try:
            return _command(name, resolve("command", name))
        except BrokenPlugin as error:
            say(error_lines(error), err=True)
            return None


def _command(name: str, target: object) -> Any:
    """Return what an entry point names as a command; raise `BrokenPlugin` if it is none."""
    if not (isinstance(target, typer.Typer) or callable(target)):
        raise BrokenPlugin(
            f"The command `{name}` is a {type(target).__name__}; wanted a function or a typer.Typer.",
            "Correct its entry point, or uninstall its package.",
        )
    try:
        plugin = target if isinstance(target, typer.Typer) else _app_of(target)
        command = typer.main.get_command(plugin)
    except Exception as error:  # annotations of third-party code, which typer may not know
        raise BrokenPlugin(f"The command `{name}` is none: {type(error).__name__}: {error}") from error
    command.name = name
    return command


def _app_of(function: object) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(function)  # type: ignore[type-var]
    return app
