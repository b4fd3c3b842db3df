"""Conversations in the catalogue world: what the user writes, and what must hold after each line.

The file has one conversation a line, as JSON. A line of a user is a prompt, a change of the last image, a
question, or something that the world cannot draw. Not covered: input images, approval, several images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from pleinair.tools.types import Value

SHIPPED = Path(__file__).parents[1] / "data" / "driving.jsonl"

# "generator error": the first image of the conversation fails; "omission": it leaves out the last subject;
# "no hits": no search finds anything; "few slots": the generator takes `slots` references
FaultKind = Literal["", "generator error", "omission", "no hits", "few slots"]


class Fault(Value):
    """What goes wrong in a conversation."""

    kind: FaultKind = ""
    slots: int = Field(default=3, ge=0, le=3)


class Line(Value):
    """Line of a user, and what must hold after it; without `draws` no image may be drawn.

    `calls` and `images` are the least for a driver that does as the react graph's system prompt says: a
    draft, its critique, and the retrieval of what is missing.
    """

    says: str
    draws: str = ""  # what the image must show in the end, as a prompt of the world
    lacks: tuple[str, ...] = ()  # concepts of `draws` that cannot be had, because of the fault
    vetoes: tuple[str, ...] = ()  # concepts whose references must be others than before
    calls: int = Field(ge=0)  # tool calls
    images: int = Field(ge=0)
    most_images: int = Field(ge=0)  # with more the line has not ended as expected


class Conversation(Value):
    """Lines of one thread, one to five."""

    id: str
    lines: tuple[Line, ...] = Field(min_length=1, max_length=5)
    fault: Fault = Fault()


def read_conversations(path: Path = SHIPPED) -> Sequence[Conversation]:
    """Read conversations; raises pydantic's `ValidationError` for a line that is none."""
    lines = path.read_text("utf-8").splitlines()
    return [Conversation.model_validate_json(line) for line in lines if line.strip()]
