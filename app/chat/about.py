"""Answers of a chat about the program itself: by rules, without a model, a run or a cost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pleinair.app.pocket import is_pocket, language_of
from pleinair.app.settings import Settings, load
from pleinair.app.texts import printable

if TYPE_CHECKING:
    from pleinair.app.chat.session import ChatSession

_ABILITIES = re.compile(
    r"^(?:(?:so|and|hi|hello|hey)[, ]+)?(?:what (?:can|could|do) (?:you|i|we) (?:draw|paint|do|make|generate"
    r"|create|type|say|ask|write|know)|what (?:else )?is possible|(?:what|who) are you|what is this"
    r"|how (?:does|do) (?:this|it|you) work|how do i (?:use|start|begin)|can you help)\b[^.]{0,60}[?.!]*$",
    re.IGNORECASE,
)
_GREETING = re.compile(r"^(?:hi|hello|hey|good (?:morning|day))(?: there)?[.!]*$", re.IGNORECASE)
_THANKS = re.compile(
    r"^(?:ok|okay|great|nice|perfect|good|cool|wow)?[, ]*"
    r"(?:(?:thanks|thank you|thx)(?: a lot| very much)?)?[.!]*$",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"^where (?:is|are) (?:it|(?:the|my|all) (?:\w+ )?(?:image|picture|file|photo)s?)[?.!]*$", re.IGNORECASE
)
_QUESTION = re.compile(  # not of what may be in an image, such as "a red car?", "what if …", "can you add …?"
    r"^(?:(?:so|and|but|hm+)[, ]+)?(?:(?:why|which|who|when|where|how(?! about)|what(?! (?:if|about))"
    r"|is (?:it|this|that|there)|are (?:they|there|you)|did|does|do you|have you|was|can i|may i)\b.*\?"
    r"|how (?:much|long|many) (?:did|does|has|have|will|is|was)\b.*)$",
    re.IGNORECASE,
)
_EXAMPLES = 4  # names of the miniature world


def about(line: str, session: ChatSession) -> str:
    """Return the answer to a question about the program, or to a greeting; "" for any other line."""
    settings = load(session.thread.profile, session.thread.overrides)
    if is_pocket(settings) and (answer := language_of(settings).answer(line)):
        return printable(answer)
    if _ABILITIES.match(line) or _GREETING.match(line):
        return _abilities(settings)
    if _THANKS.match(line):
        return "Nothing was drawn. Say what to change, or /quit."
    if _PLACE.match(line):
        pictures = [message.version.picture for message in session.messages()]
        return "\n".join(str(picture) for picture in pictures if picture) or "There is no image yet."
    if line.isascii() and ":" not in line and not any(map(str.isalpha, line)):
        return "This is no request. Describe what is to be seen, or what to change; /help lists all commands."
    return _status(session) if _QUESTION.match(line) else ""


def _status(session: ChatSession) -> str:
    """Return how the last request ended, what it took, and the commands that say more."""
    from pleinair.app.api import find
    from pleinair.app.trace.trace import spent, trace_begun

    if not session.thread.turns:
        return "Nothing was drawn. Describe what is to be seen; /help lists all commands."
    message = session.message()
    version = message.version
    reason = version.reason.rstrip(".")
    usage = trace_begun(find(version.run), session.places).usage
    return printable(
        f"Request {message.number} ({message.prompt[:200]}) is {version.status}: {reason}. "
        f"It took {spent(usage)}. /trace shows its steps, /refs the references, /help all commands."
    )


def _abilities(settings: Settings) -> str:
    lines = [
        f"I generate images with {settings.generator.label}, and references from {settings.library.folder!r} "
        f"(profile {settings.profile!r})."
    ]
    if is_pocket(settings):
        language = language_of(settings)
        names = ", ".join(language.names[:_EXAMPLES])
        lines.append(f"These models know a miniature world only: {names} and others.")
        lines.append(f"{language.abilities}.")
    lines.append('Then say what to change: "add a …", "remove the …", "bigger", undo. /help lists all.')
    return printable(" ".join(lines))
