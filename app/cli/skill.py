"""`pleinair skill`: the file that tells other agents how to use the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from pleinair.app.cli.terminal import explained
from pleinair.tools.types import BadInput

FOLDER = ".claude/skills"  # where Claude Code looks


def skill(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="With --install: the agent's folder of skills.")
    ] = "",
    install: Annotated[
        bool,
        typer.Option("--install", help=f"Write it to DIR/pleinair/SKILL.md; DIR is {FOLDER} if omitted."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that differs.")] = False,
) -> None:
    """Print the skill file for other agents (SKILL.md), or write it where they look for skills.

    Claude Code looks in .claude/skills of a project or ~/.claude/skills, Codex in .agents/skills.
    """
    from pleinair.app.skill.skill import install_skill, skill_text
    from pleinair.tools.storage.files import checked_path

    with explained():
        if install:
            typer.echo(str(install_skill(checked_path(folder or FOLDER, "DIR"), force=force)))
        elif folder or force:
            raise BadInput("DIR and --force: only with --install")
        else:
            typer.echo(skill_text(), nl=False)
