"""The skill file: how other agents use the command line, in the format of Agent Skills."""

from __future__ import annotations

from pathlib import Path

from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

NAME = "pleinair"  # of the skill, which its folder must have too
FILE = "SKILL.md"


def skill_text() -> str:
    """Return the skill file of this version."""
    return Path(__file__).with_name(FILE).read_text(encoding="utf-8")


def install_skill(folder: Path, *, force: bool = False) -> Path:
    """Write the skill to a folder of skills, as `pleinair/SKILL.md`, and return its path.

    Args:
        folder: of all skills of an agent, or the skill's own, named `pleinair`.
        force: whether a file with another text is overwritten.

    Raises:
        BadInput: there is a file with another text, or something that is no file.
        PleinairError: the folder cannot be written to.
    """
    path = (folder if folder.name == NAME else folder / NAME) / FILE
    try:
        present = path.read_text(encoding="utf-8") if path.exists() else None
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(path)!r}: is there, and cannot be read: {error}") from error
    if present == skill_text():
        return path
    if present is not None and not force:
        raise BadInput(f"{str(path)!r}: there is another text", "Overwrite it with --force.")
    write_whole(path, skill_text().encode())
    return path
