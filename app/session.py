"""A talk: runs that follow each other, and what the user wants to see used or not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.agent.react.schemas import Pin
from pleinair.app.api import find, home, run_table
from pleinair.app.api import finish as work_on
from pleinair.app.models.pins import require_pins
from pleinair.app.prices import require_prices
from pleinair.app.runs.history import state_of
from pleinair.app.runs.request import (
    ChatThread,
    check_budget,
    chosen_seed,
    keep_given,
    new_order,
    read_order,
)
from pleinair.app.settings import load
from pleinair.tools.types import BadInput, Budget, Hit, Picture, Reference, Retrieval

if TYPE_CHECKING:
    from pleinair.agent.react.state import ReactState
    from pleinair.app.runs.events import Event
    from pleinair.app.runs.results import Result
    from pleinair.app.runs.store import Run
    from pleinair.app.settings import OnPreview

GRAPH = "react"
EARLIER = "of an earlier request"


@dataclass(frozen=True)
class Found:
    """One picture that may show a concept, and what is to become of it."""

    concept: str
    hit: Hit
    marks: tuple[str, ...]  # of used, pinned, vetoed, under the threshold, of an earlier request


@dataclass
class ChatSession:
    """Hold a talk; every request is a run of its own that goes on from the one before."""

    profile: str | None = None
    out: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)  # those that may be gone on from, oldest first
    vetoes: set[str] = field(default_factory=set)
    pins: dict[str, Hit] = field(default_factory=dict)
    given: dict[str, Reference] = field(default_factory=dict)

    def submit(self, prompt: str) -> Run:
        """Check a request and write its row; raises `BadInput`, and nothing was written."""
        thread = ChatThread(
            after=self.runs[-1] if self.runs else "",
            vetoes=tuple(sorted(self.vetoes)),
            pins=tuple(Pin(concept=concept, hit=hit) for concept, hit in self.pins.items()),
            given=tuple(self.given.values()),
        )
        order = new_order(prompt, GRAPH, None, load(self.profile, self.overrides), self.out, False)
        require_pins(order.settings)
        order = order.model_copy(update={"thread": thread})
        return run_table().add(order.model_dump_json(), chosen_seed(order))

    def finish(
        self,
        run: Run,
        on_event: Callable[[Event], None] | None = None,
        on_preview: OnPreview | None = None,
    ) -> Result:
        """Work on a request until it ends, and take over what the model has done about references."""
        try:
            return work_on(run, on_event, on_preview)
        finally:
            if self._state(run.id):
                self.runs.append(run.id)
                self._take_over(run.id)

    def go_on_from(self, name: str) -> None:
        """Go on from a run, as if nothing had been said after it; raises `BadInput` where that cannot be."""
        run = find(name)
        if read_order(run.order_json).thread is None or self._state(run.id) is None:
            raise BadInput(f"run {run.id}: it is no request of a talk, or it never began")
        if run.id in self.runs:
            del self.runs[self.runs.index(run.id) + 1 :]
        else:
            self.runs.append(run.id)
        self._take_over(run.id)

    def fork(self, number: int) -> None:
        """Go on from the request of this number, counted from 1."""
        if not 1 <= number <= len(self.runs):
            raise BadInput(f"request {number}: there are {len(self.runs)}; wanted the number of one of them")
        self.go_on_from(self.runs[number - 1])

    def found(self) -> list[Found]:
        """List the pictures given or found, best first; of the last request before earlier ones."""
        state = self._state(self.runs[-1]) if self.runs else None
        best = state.outcome.best if state and state.outcome else None
        used = {one.hit.id for one in best.request.references} if best else set()
        hits = [(one.concept, one.hit, False) for one in self.given.values()]
        for one in state.retrievals if state else ():
            hits += [(one.concept, hit, _weak(one, hit)) for hit in one.hits]
        now = _sought(state) if state else frozenset()
        marked = [
            Found(concept, hit, self._marks(concept, hit, used, under, now)) for concept, hit, under in hits
        ]
        return sorted(marked, key=lambda one: EARLIER in one.marks)

    def veto(self, *numbers: int) -> list[Found]:
        """Forbid pictures of the list, or allow them again; `BadInput` and none where one is not there."""
        chosen = self._numbered(*numbers)
        self.vetoes ^= {one.hit.id for one in chosen}
        self.pins = {concept: hit for concept, hit in self.pins.items() if hit.id not in self.vetoes}
        return chosen

    def pin(self, *numbers: int) -> list[Found]:
        """Show concepts by pictures of the list from now on, or let them go again; raises as `veto`."""
        chosen = self._numbered(*numbers)
        if twice := [name for name, count in Counter(one.concept for one in chosen).items() if count > 1]:
            raise BadInput(f"{twice[0]}: wanted one picture to show it")
        for one in chosen:
            if self.pins.get(one.concept) == one.hit:
                del self.pins[one.concept]
            else:
                self.pins[one.concept] = one.hit
                self.vetoes.discard(one.hit.id)
        return chosen

    def approve(self) -> list[Found]:
        """Pin what the last picture was drawn from."""
        used = [one for one in self.found() if "used" in one.marks]
        self.pins |= {one.concept: one.hit for one in used}
        return used

    def give(self, file: str, concept: str) -> Picture:
        """Keep a picture of the user's own to show a concept; raises `BadInput` for a file that is none."""
        from pleinair.tools.images.reading import BadPicture
        from pleinair.tools.images.sandbox import read_untrusted

        try:
            image = read_untrusted(Path(file).expanduser())
        except BadPicture as fault:
            raise BadInput(f"picture {file!r}: {fault}") from fault
        (picture,) = keep_given([image], home())
        hit = Hit(id=picture.sha256, score=1.0, caption=Path(file).name, source="given in the talk")
        self.given[concept] = Reference(concept=concept, hit=hit, picture=picture)
        return picture

    def limit(self, changes: Mapping[str, Any]) -> Budget:
        """Set limits of the requests to come, and give them all; raises `BadInput` for one that is none."""
        wanted = self.overrides | {f"budget.{key}": value for key, value in changes.items()}
        settings = load(self.profile, wanted)
        check_budget(settings.budget)
        require_prices(settings)
        self.overrides = wanted
        return settings.budget

    def _state(self, run_id: str) -> ReactState | None:
        return state_of(run_id, home())

    def _take_over(self, run_id: str) -> None:
        state = self._state(run_id)
        assert state is not None
        self.vetoes = set(state.vetoes)
        self.pins = {one.concept: one.hit for one in state.pins}
        self.given = {one.concept: one for one in state.given}

    def _marks(
        self, concept: str, hit: Hit, used: set[str], under: bool, now: frozenset[str]
    ) -> tuple[str, ...]:
        marks = {
            "used": hit.id in used,
            "pinned": self.pins.get(concept) == hit,
            "vetoed": hit.id in self.vetoes,
            "under the threshold": under,
            EARLIER: bool(now) and concept not in now,
        }
        return tuple(name for name, true in marks.items() if true)

    def _numbered(self, *numbers: int) -> list[Found]:
        found = self.found()
        for number in numbers:
            if not 1 <= number <= len(found):
                raise BadInput(f"reference {number}: there are {len(found)}; `/refs` lists them")
        return [found[number - 1] for number in dict.fromkeys(numbers)]


def _weak(found: Retrieval, hit: Hit) -> bool:
    """Tell whether a hit is too weak to be taken."""
    return found.abstained or (found.threshold is not None and hit.score < found.threshold)


def _sought(state: ReactState) -> frozenset[str]:
    """Name the concepts of the last request, or of the last one that was drawn where it came to none."""
    from pleinair.agent.react.state import last_turn_with_image

    last = last_turn_with_image(state.turns)
    return frozenset(one.name for one in state.concepts or (last.concepts if last else ()))
