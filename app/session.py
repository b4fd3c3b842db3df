"""Chat: consecutive runs, with the references that the user vetoed or pinned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.agent.react.schemas import Pin
from pleinair.app import api
from pleinair.app.chat.edits import Edit, Resize, is_scene_edit, read_resize, read_scene_edit
from pleinair.app.engines import check, declared_capabilities
from pleinair.app.models.pins import require_pins
from pleinair.app.runs.history import state_of
from pleinair.app.runs.prices import require_prices
from pleinair.app.runs.prompts import PromptOptions, read_size, request_from
from pleinair.app.runs.request import (
    ChatThread,
    check_budget,
    read_input_image,
    read_request,
    store_input_images,
)
from pleinair.app.runs.results import result_of
from pleinair.app.settings import Settings, load
from pleinair.tools.prompt_options import parse_prompt_options
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import (
    MAX_SIDE,
    BadInput,
    Budget,
    GenerateRequest,
    Hit,
    ImageOptions,
    Picture,
    Reference,
    Retrieval,
)

if TYPE_CHECKING:
    from pleinair.agent.react.state import ReactState
    from pleinair.app.runs.events import OnEvent
    from pleinair.app.runs.results import Result
    from pleinair.app.runs.store import Run
    from pleinair.app.settings import OnPreview

GRAPH = "react"
EARLIER = "of an earlier request"
IMAGE = "image."  # beginning of the overrides that are options of the image


@dataclass(frozen=True)
class ChatReference:
    """Candidate image of a concept, and its use."""

    concept: str
    hit: Hit
    marks: tuple[str, ...]  # of used, pinned, vetoed, under the threshold, of an earlier request


@dataclass(frozen=True)
class ChatEntry:
    """One request of a chat."""

    number: int  # from 1
    run: str
    prompt: str
    ending: str  # "open" if it has not ended
    reason: str
    picture: Path | None  # None without an image, or if its file is gone


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
    _image_options: dict[str, Any] = field(default_factory=dict)  # overrides of the last request's image
    _image_before: dict[str, dict[str, Any]] = field(default_factory=dict)  # those before a request, by run
    _undone: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # runs, with the overrides then

    def __post_init__(self) -> None:
        self._image_options = self._image_overrides()

    def _image_overrides(self) -> dict[str, Any]:
        return {key: value for key, value in self.overrides.items() if key.startswith(IMAGE)}

    def submit(self, prompt: str, size: Mapping[str, int] | None = None) -> Run:
        """Validate a request and write its row; raises `BadInput` before anything is written.

        `size` is that of an `Edit`, and stays as it was if the request is refused.
        """
        from pleinair.app.models.ready import require_ready

        before = self.overrides
        try:
            if size:
                self.set_image_options(size)
            settings = load(self.profile, self.overrides)
            request = request_from(
                prompt, graph=GRAPH, num_images=1, settings=settings, out=self.out, thread=self._thread()
            )
            require_pins(settings)
            require_ready(settings)
        except BadInput:
            self.overrides = before
            raise
        run = api.run_table().add_group(request.rows())[0]
        self._undone.clear()
        self._image_before[run.id] = self._image_options
        self._image_options = self._image_overrides()
        return run

    def _thread(self) -> ChatThread:
        return ChatThread(
            after=self.runs[-1] if self.runs else "",
            vetoes=tuple(sorted(self.vetoes)),
            pins=tuple(Pin(concept=concept, hit=hit) for concept, hit in self.pins.items()),
            given=tuple(self.input_images.values()),
        )

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
            self.runs = [*_runs_before(run), run.id]
        self._take_over(state)

    def undo(self) -> str:
        """Continue from before the last request, and return its prompt; its image stays in its run.

        Vetoes, pins, input images and options of the image are those from before it. Raises `BadInput` if
        there is no request.
        """
        if not self.runs:
            raise BadInput("nothing to undo: there is no request yet")
        *earlier, last = self.runs
        self._undone.append((last, self.overrides))
        request = read_request(api.find(last).request_json)
        if earlier:
            self.continue_from(earlier[-1])
        else:
            self.runs = []
        if not earlier and request.thread:
            self.vetoes = set(request.thread.vetoes)
            self.pins = {pin.concept: pin.hit for pin in request.thread.pins}
            self.input_images = {reference.concept: reference for reference in request.thread.given}
        others = {key: value for key, value in self.overrides.items() if not key.startswith(IMAGE)}
        self.overrides = others | self._image_before.get(last, self._image_options)
        self._image_options = self._image_overrides()
        return request.prompt

    def redo(self) -> str:
        """Continue from the request that was undone last, and return its prompt; or raise `BadInput`."""
        if not self._undone:
            raise BadInput("nothing to redo: nothing was undone since the last request")
        last, overrides = self._undone.pop()
        self.continue_from(last)
        self.overrides = overrides
        self._image_options = self._image_overrides()
        return self.entry().prompt

    def edit(self, line: str) -> Edit:
        """Return the request that a line means: as it is, or as a change of the last image.

        What is added, removed or changed in size is worked out by rules; the session itself is not changed.

        Raises:
            BadInput: there is no image to change, or the change is not possible.
        """
        scene, resize = self._scene(), read_resize(line)
        parsed = parse_prompt_options(line)
        if resize:
            return Edit(scene[0] if scene else "", self._size(resize, scene[2] if scene else None))
        if scene and parsed.options and not parsed.prompt:  # such as "--seed 7"
            return Edit(f"{scene[0]} {line}")
        if not is_scene_edit(line):
            return Edit(line)
        if scene is None:
            raise BadInput("there is no image to change yet", "Describe what is to be seen.")
        return Edit(read_scene_edit(line, scene[0], scene[1]) or line)

    def entries(self) -> list[ChatEntry]:
        """List the requests of the chat, the oldest first."""
        return [_entry(number, api.find(run)) for number, run in enumerate(self.runs, 1)]

    def entry(self, number: int | None = None) -> ChatEntry:
        """Return a request by its number, or the last one; raises `BadInput` if there is none."""
        number = len(self.runs) if number is None else number
        if not self.runs:
            raise BadInput("there is no request yet")
        self._check_number(number)
        return _entry(number, api.find(self.runs[number - 1]))

    def save(self, file: str) -> Path:
        """Copy the newest image to a new .png file or into a folder; raises `BadInput` for another name."""
        entries = [entry for entry in reversed(self.entries()) if entry.picture]
        if not entries or not entries[0].picture:
            raise BadInput("there is no image to save yet")
        target = Path(file).expanduser().absolute()
        target = target / entries[0].picture.name if target.is_dir() else target
        if target.suffix != ".png":
            raise BadInput(f"{file!r}: must be a folder or a file that ends in .png")
        if target.exists():
            raise BadInput(f"{str(target)!r}: it exists already", "Choose another name.")
        write_whole(target, entries[0].picture.read_bytes())
        return target

    def fork(self, number: int) -> None:
        """Continue from a request by its number, from 1; raises `BadInput` if there is none."""
        self._check_number(number)
        self.continue_from(self.runs[number - 1])

    def _check_number(self, number: int) -> None:
        if not 1 <= number <= len(self.runs):
            raise BadInput(f"request {number}: must be 1 to {len(self.runs)}, the number of a request")

    def _scene(self) -> tuple[str, list[str], GenerateRequest] | None:
        """Return prompt, concepts and request of the last image; None if there is none."""
        from pleinair.agent.react.state import Turn, archive_request, last_turn_with_image

        state = state_of(self.runs[-1], api.home()) if self.runs else None
        turns = [Turn.model_validate(turn) for turn in archive_request(state)["turns"]] if state else []
        turn = last_turn_with_image(turns)
        if turn is None or turn.outcome.best is None:
            return None
        return turn.wish, [concept.name for concept in turn.concepts], turn.outcome.best.request

    def _size(self, resize: Resize, last: GenerateRequest | None) -> dict[str, int]:
        """Return the sides that change; raises `BadInput` if there is no image to scale."""
        capabilities = declared_capabilities(load(self.profile, self.overrides))
        if resize.options:
            size = read_size(PromptOptions(resize.options), capabilities)
        elif last:
            unit = capabilities.multiple_of
            sides = {"width": last.width, "height": last.height}
            size = {
                name: min(max(round(side * resize.factor / unit), 1) * unit, MAX_SIDE // unit * unit)
                for name, side in sides.items()
            }
        else:
            raise BadInput("there is no image to scale yet", "Describe what is to be seen.")
        return {name: side for name, side in size.items() if self.overrides.get(f"{IMAGE}{name}") != side}

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


def _runs_before(run: Run) -> list[str]:
    """Return the ids of the requests of a chat before a run, the oldest first, as far as they exist."""
    ids: list[str] = []
    thread = read_request(run.request_json).thread
    while thread and thread.after and thread.after not in ids:
        try:
            before = api.find(thread.after)
        except BadInput:  # it was deleted
            break
        ids.append(before.id)
        thread = read_request(before.request_json).thread
    return ids[::-1]


def _entry(number: int, run: Run) -> ChatEntry:
    prompt = read_request(run.request_json).prompt
    if run.outcome is None:
        return ChatEntry(number, run.id, prompt, "open", "not finished", None)
    result = result_of(run)
    return ChatEntry(number, run.id, prompt, run.outcome.ending, run.outcome.reason, result.picture)


def _is_under_threshold(retrieval: Retrieval, hit: Hit) -> bool:
    return retrieval.abstained or not retrieval.accepts(hit)


def _current_concepts(state: ReactState) -> frozenset[str]:
    """Return the concepts of the last request, or without any those of the last one with an image."""
    from pleinair.agent.react.state import last_turn_with_image

    turn = last_turn_with_image(state.turns)
    return frozenset(concept.name for concept in state.concepts or (turn.concepts if turn else ()))
