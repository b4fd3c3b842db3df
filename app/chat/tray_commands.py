"""Commands of a chat for the images of its tray."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pleinair.app.chat.reply import Command, optional_number, read_numbers, read_words, usage
from pleinair.app.texts import printable
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.chat.session import ChatSession
    from pleinair.app.chat.thread import TrayImage


def _tray(session: ChatSession, rest: str) -> str:
    lines = (_line(image, image.hit.id in session.thread.vetoes) for image in session.tray)
    return "\n".join(lines) or "The tray is empty. /give FILE puts an image into it."


def _line(image: TrayImage, vetoed: bool) -> str:
    use = "vetoed" if vetoed else "used" if image.used else "not used"
    shows = image.concept or "the whole image"
    return f"{image.handle:>4}  {printable(f'{shows}: {image.name[:80]}')} ({use})"


def _give(session: ChatSession, rest: str) -> str:
    words = read_words("give", rest)
    if not words:
        raise BadInput(f"{usage('give')}: needs a file, and the concept that it shows, if any")
    return _shown(session.add_image(words[0], concept=" ".join(words[1:])))


def _shown(image: TrayImage) -> str:
    shows = image.concept or "the whole image"
    return printable(f"{shows} is shown by {image.name[:80]}, {image.handle}.")


def _reuse(session: ChatSession, rest: str) -> str:
    image = session.reuse(session.message(optional_number("reuse", rest)).version.run)
    return f"The image is {image.handle} of the tray. `/concept {image.handle} CONCEPT` sets what it shows."


def _keep(session: ChatSession, rest: str) -> str:
    return "\n".join(_shown(image) for image in session.keep(*read_numbers("keep", rest)))


def _concept(session: ChatSession, rest: str) -> str:
    handle, _, concept = rest.partition(" ")
    if not handle:
        raise BadInput(f"{usage('concept')}: needs the handle of an image")
    return _shown(session.set_concept(handle, concept))


def _use(session: ChatSession, rest: str) -> str:
    def toggle(handle: str) -> str:
        image = session.image(handle)
        is_used = image.used and image.hit.id not in session.thread.vetoes
        image = session.use(handle, used=not is_used)
        return f"{image.handle} is {'used' if image.used else 'not used any more'}."

    return _each(session, "use", rest, toggle)


def _drop(session: ChatSession, rest: str) -> str:
    return _each(session, "drop", rest, lambda handle: f"{session.remove(handle).handle} is removed.")


def _each(session: ChatSession, command: str, rest: str, change: Callable[[str], str]) -> str:
    """Change each of some images, or none if there is a handle without an image."""
    handles = list(dict.fromkeys(rest.replace(",", " ").split()))
    if not handles:
        raise BadInput(f"{usage(command)}: needs the handle of an image")
    for handle in handles:
        session.image(handle)
    return "\n".join(map(change, handles))


def _strength(session: ChatSession, rest: str) -> str:
    try:
        strength = None if rest == "none" else float(rest)
    except ValueError as error:
        raise BadInput(f"{usage('strength')}: needs a number from 0 to 1, got {rest[:40]!r}") from error
    session.set_strength(strength)
    return f"Strength of all references: {'as the generator has it' if strength is None else strength}."


TRAY_COMMANDS: dict[str, Command] = {
    "tray": _tray,
    "give": _give,
    "reuse": _reuse,
    "keep": _keep,
    "concept": _concept,
    "use": _use,
    "drop": _drop,
    "strength": _strength,
}
