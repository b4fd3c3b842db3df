"""Chat: consecutive runs, with the references that the user vetoed or pinned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.agent.react.schemas import Pin
from pleinair.app import api
from pleinair.app.engines import check
from pleinair.app.models.pins import require_pins
from pleinair.app.runs.history import state_of
from pleinair.app.runs.prompts import request_from
from pleinair.app.runs.request import (
    ChatThread,
    check_budget,
    read_input_image,
    read_request,
    require_prices,
    store_input_images,
)
from pleinair.app.settings import Settings, load
from pleinair.tools.types import BadInput, Budget, Hit, ImageOptions, Picture, Reference, Retrieval

if TYPE_CHECKING:
    from pleinair.agent.react.state import ReactState
    from pleinair.app.runs.events import OnEvent
    from pleinair.app.runs.results import Result
    from pleinair.app.runs.store import Run
    from pleinair.app.settings import OnPreview

GRAPH = "react"
EARLIER = "of an earlier request"


@dataclass(frozen=True)
class ChatReference:
    """Candidate image of a concept, and its use."""

    concept: str
    hit: Hit
    marks: tuple[str, ...]  # of used, pinned, vetoed, under the threshold, of an earlier request


@dataclass
class ChatSession:
    """Chat; each request is a run that continues the one before."""

    profile: str | None = None
    out: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)  # ids, oldest first
    vetoes: set[str] = field(default_factory=set)
    pins: dict[str, Hit] = field(default_factory=dict)
    input_images: dict[str, Reference] = field(default_factory=dict)  # by concept

    def submit(self, prompt: str) -> Run:
        """Validate a request and write its row; raises `BadInput` before anything is written."""
        thread = ChatThread(
            after=self.runs[-1] if self.runs else "",
            vetoes=tuple(sorted(self.vetoes)),
            pins=tuple(Pin(concept=concept, hit=hit) for concept, hit in self.pins.items()),
            given=tuple(self.input_images.values()),
        )
        settings = load(self.profile, self.overrides)
        request = request_from(
            prompt, graph=GRAPH, num_images=1, settings=settings, out=self.out, thread=thread
        )
        require_pins(settings)
        return api.run_table().add_group(request.rows())[0]

    def finish(
        self, run: Run, on_event: OnEvent | None = None, on_preview: OnPreview | None = None
    ) -> Result:
        """Work on a request until it ends, and take over the model's pins and vetoes."""
        try:
            return api.finish(run, on_event, on_preview)
        finally:
            if state := state_of(run.id, api.home()):
                self.runs.append(run.id)
                self._take_over(state)

    def continue_from(self, name: str) -> None:
        """Continue from a run, dropping the requests after it; raises `BadInput` for a run of no chat."""
        run = api.find(name)
        state = state_of(run.id, api.home())
        if read_request(run.request_json).thread is None or state is None:
            raise BadInput(f"run {run.id}: not a request of a chat, or never started")
        if run.id in self.runs:
            del self.runs[self.runs.index(run.id) + 1 :]
        else:
            self.runs.append(run.id)
        self._take_over(state)

    def fork(self, number: int) -> None:
        """Continue from a request by its number, from 1; raises `BadInput` if there is none."""
        if not 1 <= number <= len(self.runs):
            raise BadInput(f"request {number}: must be 1 to {len(self.runs)}, the number of a request")
        self.continue_from(self.runs[number - 1])

    def references(self) -> list[ChatReference]:
        """List input images and hits, best first; those of the last request before earlier ones."""
        state = state_of(self.runs[-1], api.home()) if self.runs else None
        best = state.outcome.best if state and state.outcome else None
        used = {reference.hit.id for reference in best.request.references} if best else set()
        hits = [(reference.concept, reference.hit, False) for reference in self.input_images.values()]
        for retrieval in state.retrievals if state else ():
            hits += [(retrieval.concept, hit, _is_under_threshold(retrieval, hit)) for hit in retrieval.hits]
        current = _current_concepts(state) if state else frozenset()
        references = [
            ChatReference(concept, hit, self._marks(concept, hit, hit.id in used, under, current))
            for concept, hit, under in hits
        ]
        return sorted(references, key=lambda reference: EARLIER in reference.marks)

    def veto(self, *numbers: int) -> list[ChatReference]:
        """Veto references by number, or allow them again.

        Raises `BadInput`, and vetoes nothing, if a number is not in the list.
        """
        references = self._numbered(*numbers)
        self.vetoes ^= {reference.hit.id for reference in references}
        self.pins = {concept: hit for concept, hit in self.pins.items() if hit.id not in self.vetoes}
        return references

    def pin(self, *numbers: int) -> list[ChatReference]:
        """Pin concepts to references by number, or unpin them; raises as `veto`."""
        references = self._numbered(*numbers)
        counts = Counter(reference.concept for reference in references)
        if repeated := [concept for concept, count in counts.items() if count > 1]:
            raise BadInput(f"{repeated[0]}: a concept can be pinned to one image only")
        for reference in references:
            if self.pins.get(reference.concept) == reference.hit:
                del self.pins[reference.concept]
            else:
                self.pins[reference.concept] = reference.hit
                self.vetoes.discard(reference.hit.id)
        return references

    def approve(self) -> list[ChatReference]:
        """Pin the references of the last image."""
        used = [reference for reference in self.references() if "used" in reference.marks]
        self.pins |= {reference.concept: reference.hit for reference in used}
        return used

    def add_input_image(self, file: str, concept: str) -> Picture:
        """Store an input image of a concept; raises `BadInput` for a file that is not an image."""
        (picture,) = store_input_images([read_input_image(file)], api.home())
        hit = Hit(id=picture.sha256, score=1.0, caption=Path(file).name, source="input image of a chat")
        self.input_images[concept] = Reference(concept=concept, hit=hit, picture=picture)
        return picture

    def set_budget(self, changes: Mapping[str, Any]) -> Budget:
        """Change limits of the next requests and return all; raises `BadInput` for an unusable one."""
        overrides, settings = self._changed("budget", changes)
        check_budget(settings.budget)
        require_prices(settings)
        self.overrides = overrides
        return settings.budget

    def set_image_options(self, changes: Mapping[str, Any]) -> ImageOptions:
        """Change options of the next images and return all; raises as `set_budget`."""
        overrides, settings = self._changed("image", changes)
        check(settings)
        self.overrides = overrides
        return settings.image

    def _changed(self, table: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], Settings]:
        overrides = self.overrides | {f"{table}.{key}": value for key, value in changes.items()}
        return overrides, load(self.profile, overrides)

    def _take_over(self, state: ReactState) -> None:
        self.vetoes = set(state.vetoes)
        self.pins = {pin.concept: pin.hit for pin in state.pins}
        self.input_images = {reference.concept: reference for reference in state.given}

    def _marks(
        self, concept: str, hit: Hit, used: bool, under: bool, current: frozenset[str]
    ) -> tuple[str, ...]:
        marks = {
            "used": used,
            "pinned": self.pins.get(concept) == hit,
            "vetoed": hit.id in self.vetoes,
            "under the threshold": under,
            EARLIER: bool(current) and concept not in current,
        }
        return tuple(name for name, applies in marks.items() if applies)

    def _numbered(self, *numbers: int) -> list[ChatReference]:
        references = self.references()
        for number in numbers:
            if not 1 <= number <= len(references):
                raise BadInput(f"reference {number}: there are {len(references)}", "`/refs` lists them.")
        return [references[number - 1] for number in dict.fromkeys(numbers)]


def _is_under_threshold(retrieval: Retrieval, hit: Hit) -> bool:
    return retrieval.abstained or (retrieval.threshold is not None and hit.score < retrieval.threshold)


def _current_concepts(state: ReactState) -> frozenset[str]:
    """Return the concepts of the last request, or without any those of the last one with an image."""
    from pleinair.agent.react.state import last_turn_with_image

    turn = last_turn_with_image(state.turns)
    return frozenset(concept.name for concept in state.concepts or (turn.concepts if turn else ()))
