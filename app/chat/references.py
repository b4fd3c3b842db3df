"""References of a chat: images of its tray and hits of its requests, which a person vetoes or pins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pleinair.agent.react.schemas import Pin
from pleinair.app.chat.thread import TrayImage
from pleinair.app.chat.tray import ThreadTray, without_pinned
from pleinair.app.runs.history import state_of
from pleinair.app.runs.request import read_request, store_input_images
from pleinair.tools.types import BadInput, Hit, Retrieval, concept_key

if TYPE_CHECKING:
    from pleinair.agent.react.state import ReactState

EARLIER = "of an earlier request"


@dataclass(frozen=True)
class ChatReference:
    """Candidate image of a concept, and its use."""

    concept: str
    hit: Hit
    marks: tuple[str, ...]  # of used, pinned, vetoed, under the threshold, of an earlier request
    handle: str = ""  # of an image of the tray


class ThreadReferences(ThreadTray):
    """Vetoes and pins of a thread; each change is made as a whole or refused."""

    def references(self) -> list[ChatReference]:
        """List used images of the tray and hits, best first; the last request's before earlier ones."""
        run, state = self._last_state()
        question = self._runs.get(run).question if run else None
        best = state.outcome.best if state and state.outcome else None
        planned = question.references if question else best.request.references if best else ()
        used = {reference.hit.id for reference in planned}
        images = [image for image in self.tray if image.used and image.concept]
        hits = [(image.concept, image.hit, False, image.handle) for image in images]
        for retrieval in state.retrievals if state else ():
            hits += [(retrieval.concept, hit, _is_under(retrieval, hit), "") for hit in retrieval.hits]
        current = _current_concepts(state) if state else frozenset()
        references = []
        for concept, hit, under, handle in hits:
            is_earlier = bool(current) and concept_key(concept) not in current
            marks = self._marks(concept, hit, hit.id in used, under, is_earlier)
            references.append(ChatReference(concept, hit, marks, handle))
        return sorted(references, key=lambda reference: EARLIER in reference.marks)

    def _last_state(self) -> tuple[str, ReactState | None]:
        """Return the last run that has begun, and its state; "" and None if there is none."""
        for run in reversed(self.thread.runs):
            if state := state_of(run, self.places):
                return run, state
        return "", None

    def _marks(self, concept: str, hit: Hit, used: bool, under: bool, earlier: bool) -> tuple[str, ...]:
        marks = {
            "used": used,
            "pinned": Pin(concept=concept, hit=hit) in self.thread.pins,
            "vetoed": hit.id in self.thread.vetoes,
            "under the threshold": under,
            EARLIER: earlier,
        }
        return tuple(name for name, applies in marks.items() if applies)

    def veto(self, *numbers: int) -> list[ChatReference]:
        """Veto references by number, or allow them again.

        Raises `BadInput`, and vetoes nothing, if a number is not in the list.
        """
        references = self._numbered(*numbers)
        vetoes = set(self.thread.vetoes) ^ {reference.hit.id for reference in references}
        pins = tuple(pin for pin in self.thread.pins if pin.hit.id not in vetoes)
        self._set(vetoes=tuple(sorted(vetoes)), pins=pins)
        return references

    def pin(self, *numbers: int) -> list[ChatReference]:
        """Pin concepts to references by number, or unpin them; raises as `veto`."""
        references = self._numbered(*numbers)
        counts = Counter(reference.concept for reference in references)
        if repeated := [concept for concept, count in counts.items() if count > 1]:
            raise BadInput(f"{repeated[0]}: a concept can be pinned to one image only")
        pins = {pin.concept: pin for pin in self.thread.pins}
        allowed = set()
        for reference in references:
            pin = Pin(concept=reference.concept, hit=reference.hit)
            if pins.get(pin.concept) == pin:
                del pins[pin.concept]
            else:
                pins[pin.concept] = pin
                allowed.add(pin.hit.id)
        vetoes = tuple(id for id in self.thread.vetoes if id not in allowed)
        self._set(pins=tuple(pins.values()), vetoes=vetoes)
        self.thread = without_pinned(self.thread)
        return references

    def keep_hits(self, hits: Mapping[str, Hit]) -> None:
        """Pin concepts to hits, as a person does who answers the question of a run; no veto of them stays."""
        pins = {pin.concept: pin for pin in self.thread.pins}
        pins |= {concept: Pin(concept=concept, hit=hit) for concept, hit in hits.items()}
        allowed = {hit.id for hit in hits.values()}
        vetoes = tuple(id for id in self.thread.vetoes if id not in allowed)
        self._set(pins=tuple(pins.values()), vetoes=vetoes)
        self.thread = without_pinned(self.thread)

    def approve(self) -> list[ChatReference]:
        """Pin the references of the last image."""
        used = [reference for reference in self.references() if "used" in reference.marks]
        self.keep_hits({reference.concept: reference.hit for reference in used})
        return used

    def keep(self, *numbers: int) -> list[TrayImage]:
        """Add references of the list to the tray, by their numbers; raises as `veto`."""
        from pleinair.app.libraries import open_library

        references = self._numbered(*numbers)
        hits = [reference for reference in references if not reference.handle]
        images = [self.use(reference.handle) for reference in references if reference.handle]
        settings = read_request(self._runs.get(self._last_state()[0]).request_json).settings if hits else None
        library = open_library(settings, self.places) if settings else None
        pictures = [library.picture(reference.hit.id) for reference in hits] if library else []
        stored = store_input_images(pictures, self.places)
        for reference, picture in zip(hits, stored, strict=True):
            images.append(self.add_hit(reference.hit, picture, reference.concept))
        return images

    def _numbered(self, *numbers: int) -> list[ChatReference]:
        references = self.references()
        for number in numbers:
            if not 1 <= number <= len(references):
                raise BadInput(f"reference {number}: there are {len(references)}", "`/refs` lists them.")
        return [references[number - 1] for number in dict.fromkeys(numbers)]


def _is_under(retrieval: Retrieval, hit: Hit) -> bool:
    return retrieval.abstained or not retrieval.accepts(hit)


def _current_concepts(state: ReactState) -> frozenset[str]:
    """Return the keys of the last request's concepts, or without any those of the last one with an image."""
    from pleinair.agent.react.state import last_turn_with_image

    turn = last_turn_with_image(state.turns)
    return frozenset(
        concept_key(concept.name) for concept in state.concepts or (turn.concepts if turn else ())
    )
