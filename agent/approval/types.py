"""Question to a person, and the answer."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

from pleinair.tools.types import Concept, Reference, Retrieval, Value

Before = Literal["draft", "references"]


class ApprovalRequest(Value):
    """Question to a person: the plan of the next image."""

    before: Before  # the draft, or the first image with references
    attempt: int  # number of the next image
    prompt: str
    concepts: tuple[Concept, ...]
    references: tuple[Reference, ...] = ()  # of the next image
    retrievals: tuple[Retrieval, ...] = ()  # the other hits, of which one may be chosen instead
    omits: bool = False  # whether a concept can go without a reference
    fault: str = ""  # why the answer before was refused
    id: str = ""  # of the interrupt, once the run waits

    @property
    def key(self) -> str:
        """Return a name of this very question; LangGraph keeps the id when a node asks again."""
        return sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Approval(Value):
    """Answer of a person; the empty one approves everything as it is."""

    before: Before = "references"
    stop: bool = False  # end the run with the images so far
    vetoes: tuple[str, ...] = ()  # ids of hits that are not used in this run
    hits: dict[str, str] = {}  # the id of the hit that is to show a concept
    given: tuple[Reference, ...] = ()  # input images, already in the store, each for its concept
    without: tuple[str, ...] = ()  # concepts that get no reference
    concepts: dict[str, str] = {}  # other names for concepts, which are retrieved anew
    prompt: str = ""  # in place of the run's

    @property
    def final(self) -> bool:
        """Return whether nothing new is retrieved for it, which would have to be approved too."""
        return not self.concepts
