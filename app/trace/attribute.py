"""Attribution of an image to its references: it is drawn again without each, and judged by its MLLM.

Everything is stored with the run: the images in its store, the rest in its `attribution.json`, written after
each image and each critique. A second call therefore costs nothing, and one after a crash goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import dropwhile
from time import perf_counter
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from typing_extensions import Unpack

from pleinair.agent.state import IMAGE, MLLM_CALL, spending_limit
from pleinair.app.api import find, home
from pleinair.app.engines import build, check, device_lock, devices_of, on_device
from pleinair.app.models.ready import require_ready
from pleinair.app.parts import OwnParts, Parts, require_parts
from pleinair.app.paths import Paths
from pleinair.app.runs.device import device_held, needed_devices
from pleinair.app.runs.request import DrawRequest, check_budget, read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Busy
from pleinair.app.settings import altered
from pleinair.app.trace.attribution import (
    Attribution,
    Redrawn,
    Subset,
    planned_subsets,
    read_attribution,
    write_attribution,
)
from pleinair.app.trace.reduced import reduced
from pleinair.app.trace.trace import Trace, trace_begun
from pleinair.tools.callbacks import StopCheck, no_callback
from pleinair.tools.critique import critique
from pleinair.tools.deadline import OutOfTime, check_deadline, deadline
from pleinair.tools.decompose import decompose
from pleinair.tools.generate import cost, generate
from pleinair.tools.images.crops import cut, is_box
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Box,
    Concept,
    GenerateRequest,
    Limit,
    Picture,
    Reference,
    Usage,
)

if TYPE_CHECKING:
    from pleinair.agent.context import Context

CALLS = 2  # of one critique: the second repairs an answer, or looks closer
OnProgress = Callable[[int, int, str], None]  # steps done, their number, what is done now


@dataclass(frozen=True)
class Plan:
    """Work of an attribution: what is drawn and judged, with what is stored of it so far."""

    run: Run
    places: Paths
    request: DrawRequest
    trace: Trace
    best: Attempt
    requests: Mapping[Subset, tuple[GenerateRequest, ...]]  # of one image, after those that it inpaints
    stored: Attribution

    @property
    def images(self) -> int:
        """Return the number of images that are still to be drawn."""
        drawn = {each.references for each in self.stored.redrawn}
        missing = sum(len(requests) for subset, requests in self.requests.items() if subset not in drawn)
        return missing + (self.stored.repeated is None)

    @property
    def critiques(self) -> int:
        """Return the number of images that are still to be judged, with the accepted one."""
        judged = {each.references for each in self.stored.redrawn if each.rows}
        return len(self.requests.keys() - judged) + (not self.stored.rows)


def plan_attribution(run: str, overrides: Mapping[str, Any] | None = None) -> Plan:
    """Check what an attribution of a run needs, and return its work; loads no model and writes nothing.

    Args:
        run: a run's id, the beginning of one, or "last".
        overrides: dotted settings of the budget, such as {"budget.images": 8}.

    Raises:
        BadInput: the run has not ended, or its best image has no references; an image of it is missing; its
            prompt cannot be built again; or an override is no limit of the budget.
    """
    row, places = find(run), home()
    if row.outcome is None:
        raise BadInput(f"run {row.id}: it has not ended (status: {row.status})", "Wait, or cancel it.")
    best, request = row.outcome.best, read_request(row.request_json)
    if best is None:
        raise BadInput(f"run {row.id}: it has no image ({row.status})", "Attribute a run that has one.")
    if not best.request.references:
        remedy = "Attribute a run whose image was drawn from references."
        raise BadInput(f"run {row.id}: its best image was drawn without references", remedy)
    if others := [name for name in overrides or {} if not name.startswith("budget.")]:
        raise BadInput(f"{others[0]}: the image is drawn again as it was; accepted: limits of the budget")
    request = request.model_copy(update={"settings": altered(request.settings, overrides or {})})
    check_budget(request.settings.budget)
    trace, references = trace_begun(row, places), best.request.references
    _require_images(row, best, ArtifactStore(places.pictures(row.id)))
    requests = {
        subset: _requests(best, [references[number] for number in subset], request, trace)
        for subset in planned_subsets(len(references))
    }
    stored = read_attribution(places.files(row.id))
    if stored is None or stored.picture != best.picture or stored.references != references:
        stored = _begun(row, trace, best)
    return Plan(row, places, request, trace, best, requests, stored)


def _require_images(run: Run, best: Attempt, store: ArtifactStore) -> None:
    inpaint = best.request.inpaint
    pictures = [best.picture, *(reference.picture for reference in best.request.references)]
    for picture in (*pictures, *([inpaint.picture] if inpaint else [])):
        try:
            store.read(picture)
        except BadArtifact as error:
            remedy = "Draw the image again, and attribute the new run."
            raise BadInput(
                f"run {run.id}: an image that it needs is gone: {error.message}", remedy
            ) from error


def _begun(run: Run, trace: Trace, best: Attempt) -> Attribution:
    rows = best.ledger.rows if best.ledger else ()
    names = [row.concept for row in rows] or [concept.name for concept in trace.concepts]
    return Attribution(
        run=run.id,
        attempt=best.number,
        prompt=trace.run.prompt,
        picture=best.picture,
        references=best.request.references,
        concepts=tuple(names),
        rows=rows,
    )


def _requests(
    best: Attempt, kept: Sequence[Reference], request: DrawRequest, trace: Trace
) -> tuple[GenerateRequest, ...]:
    """Return the requests of the image with some of its references, in the order in which they are drawn.

    An image that inpaints a box of another attempt is drawn on that one, drawn without them first; the
    first attempts that have none of those left out stay as they are.
    """
    without = [reference for reference in best.request.references if reference not in kept]
    chain = [
        (each.request, reduced(each.request, without, request, trace)) for each in _ancestry(best, trace)
    ]
    changed = [after for _, after in dropwhile(lambda pair: pair[0] == pair[1], chain)]
    return tuple(changed)


def _ancestry(best: Attempt, trace: Trace) -> list[Attempt]:
    """Return the attempts that an image was painted on, the first one first, and its own."""
    chain = [best]
    while inpaint := chain[0].request.inpaint:
        earlier = [each for each in trace.attempts.values() if each.picture == inpaint.picture]
        earlier = [each for each in earlier if each.number < chain[0].number]
        if not earlier:  # the user's own image
            break
        chain.insert(0, earlier[0])
    return chain


def attribute(
    run: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda done, total, text: None,
    **parts: Unpack[OwnParts],
) -> Attribution:
    """Draw the best image of a run without some of its references and return what each contributed.

    The image is drawn without each reference, without any, and up to three also from each alone; and once
    with all, which shows how far the generator repeats itself. The budget of the run counts for the
    attribution by itself, from the first call on; one that it stops has a `limit`, and goes on with a larger
    one.

    Args:
        run: a run's id, the beginning of one, or "last".
        overrides: dotted settings of the budget, such as {"budget.images": 8}.
        on_progress: called before each step.
        parts: objects of the program with which the run was drawn.

    Raises:
        BadInput: as of `plan_attribution`; or the models are not there, or are not those of the run.
        Busy: another process attributes this run.
    """
    plan = plan_attribution(run, overrides)
    if plan.stored.finished and not plan.images:
        return plan.stored
    settings = plan.request.settings
    check(settings)
    require_ready(settings)
    checked = require_parts(settings, parts, f"run {plan.run.id}")
    folder = plan.places.run(plan.run.id)
    try:
        with FileLock(folder / "attribution.lock", timeout=0):
            return _Work(plan_attribution(run, overrides), checked, on_progress).run()
    except Timeout as error:
        raise Busy(f"run {plan.run.id}: another process attributes it", "Wait until it has ended.") from error


class _Spent(Exception):
    """A limit of the budget forbids the next step."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.limit = limit


class _Work:
    """Steps of an attribution, each of which is stored as soon as it is done."""

    def __init__(self, plan: Plan, parts: Parts, on_progress: OnProgress) -> None:
        self._plan, self._parts, self._on_progress = plan, parts, on_progress
        self._result = plan.stored.model_copy(update={"limit": None})
        self._files = plan.places.files(plan.run.id)
        self._store = ArtifactStore(plan.places.pictures(plan.run.id))
        self._budget = plan.request.settings.budget
        self._done, self._total = 0, plan.images + plan.critiques

    def run(self) -> Attribution:
        """Do what is missing, until it is done or a limit is reached."""
        try:
            with self._in_time(), self._on_device():
                context = self._context()
                self._judge_accepted(context)
                self._repeat(context)
                for subset in self._plan.requests:
                    self._redraw(subset, context)
        except _Spent as spent:
            self._save(limit=spent.limit)
        except OutOfTime:
            self._save(limit="seconds")
        return self._result

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        seconds = self._budget.seconds
        with nullcontext() if seconds is None else deadline(seconds - self._result.usage.seconds):
            yield

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        devices = needed_devices(self._plan.request.settings)
        folder = self._plan.places.home / "devices"

        def wait(ahead: int) -> None:
            check_deadline()
            self._tell("waiting for the device")

        def unload(device: str) -> None:
            device_lock(device).unload()

        with device_held(folder, devices, wait, unload) if devices else nullcontext("") as self._device:
            yield

    def _context(self) -> Context:
        """Build the backends; raise `BadInput` unless the generator is the one that drew the image."""
        from pleinair.tools.worker.worker import started

        settings = self._plan.request.settings
        if self._device and devices_of(settings):
            settings = on_device(settings, self._device)
        stop = StopCheck(check_deadline)
        context = build(
            settings, self._plan.places, self._store, on_step=stop, on_index=no_callback, parts=self._parts
        )
        now = started(context.generator, stop).capabilities.id
        before = self._plan.trace.run.models.get("generator", now)
        if now != before:
            raise BadInput(
                f"run {self._plan.run.id}: drawn by the generator {before!r}; its settings now give {now!r}",
                "Install that model again, or draw the image anew and attribute the new run.",
            )
        return context

    def _tell(self, text: str) -> None:
        self._on_progress(self._done, self._total, text)

    def _begin(self, spend: Usage, text: str) -> None:
        """Report a step, and raise `_Spent` if the budget forbids it."""
        check_deadline()
        if limit := spending_limit(self._budget, self._result.usage, spend):
            raise _Spent(limit)
        self._tell(text)

    def _save(self, *spent: Usage, **update: Any) -> None:
        usage = Usage.total([self._result.usage, *spent])
        self._result = self._result.model_copy(update={"usage": usage, **update})
        write_attribution(self._result, self._files)

    def _judge_accepted(self, context: Context) -> None:
        if not self._result.concepts:
            self._begin(MLLM_CALL, "listing the concepts of the prompt")
            concepts, usage = decompose(self._result.prompt, model=context.model, calls=self._calls_left)
            if not concepts:
                raise BadInput(f"run {self._plan.run.id}: its prompt names no concept that could be judged")
            self._save(usage, concepts=tuple(concept.name for concept in concepts))
        if not self._result.rows:
            rows, usage = self._judged(self._plan.best.picture, context, "judging the accepted image")
            self._save(usage, rows=rows)

    def _judged(self, picture: Picture, context: Context, text: str) -> tuple[Any, Usage]:
        self._begin(MLLM_CALL, text)
        concepts = self._concepts()
        png, started = self._store.read(picture), perf_counter()
        ledger, usage = critique(
            png, self._result.prompt, concepts, model=context.model, calls=self._calls_left
        )
        self._done += 1
        seconds = usage.seconds or perf_counter() - started
        return ledger.rows, usage.model_copy(update={"seconds": seconds})

    def _concepts(self) -> list[Concept]:
        """Return the concepts as the run judged them."""
        captions = {concept.name: concept for concept in self._plan.trace.concepts}
        return [captions.get(name, Concept(name=name, caption=name)) for name in self._result.concepts]

    @property
    def _calls_left(self) -> int:
        most = self._budget.mllm_calls
        return CALLS if most is None else min(CALLS, most - self._result.usage.mllm_calls)

    def _repeat(self, context: Context) -> None:
        if self._result.repeated is None:
            picture, usage = self._drawn(
                self._plan.best.request, context, self._result.title(self._result.everything)
            )
            self._save(usage, repeated=self._difference(picture))

    def _redraw(self, subset: Subset, context: Context) -> None:
        """Draw and judge the image with some of its references."""
        title = self._result.title(subset)
        image = next((each for each in self._result.redrawn if each.references == subset), None)
        if image is None:
            image = self._drawn_with(subset, context, title)
            self._save(image.usage, redrawn=self._with(image))
        if not image.rows:
            rows, usage = self._judged(image.picture, context, f"judging: {title.lower()}")
            total = Usage.total([image.usage, usage])
            image = image.model_copy(update={"rows": rows, "usage": total})
            self._save(usage, redrawn=self._with(image))

    def _with(self, image: Redrawn) -> tuple[Redrawn, ...]:
        others = {each.references: each for each in self._result.redrawn} | {image.references: image}
        return tuple(others[subset] for subset in self._plan.requests if subset in others)

    def _drawn_with(self, subset: Subset, context: Context, title: str) -> Redrawn:
        spent, picture = list[Usage](), None
        requests = self._plan.requests[subset]
        for request in requests:
            if request.inpaint and picture:
                inpaint = request.inpaint.model_copy(update={"picture": picture})
                request = request.model_copy(update={"inpaint": inpaint})
            picture, usage = self._drawn(request, context, title)
            spent.append(usage)
        assert picture is not None, "there is at least the request of the image itself"
        return Redrawn(
            references=subset,
            prompt=requests[-1].prompt,
            picture=picture,
            difference=self._difference(picture),
            regions=self._regions(picture),
            usage=Usage.total(spent),
        )

    def _drawn(self, request: GenerateRequest, context: Context, title: str) -> tuple[Picture, Usage]:
        """Draw an image once for all calls, like a step of a run of its own."""
        self._begin(IMAGE, f"drawing: {title.lower()}")
        run_id, generator, started = f"{self._plan.run.id}/attribution", context.generator, perf_counter()
        picture = generate(
            request, generator=generator, store=self._store, run_id=run_id, on_step=context.on_step
        )
        seconds = perf_counter() - started
        paid = cost(request, generator=generator, store=self._store, run_id=run_id)
        self._done += 1
        return picture, Usage.total([Usage(images=1, seconds=seconds), paid])

    def _difference(self, picture: Picture, box: Box | None = None) -> float:
        """Return the mean absolute difference of an image's pixels to the accepted image's, 0 to 1."""
        from PIL import ImageChops, ImageStat

        images = (cut(self._store.open(each), box) for each in (picture, self._plan.best.picture))
        means = ImageStat.Stat(ImageChops.difference(*images)).mean
        return sum(means) / len(means) / 255

    def _regions(self, picture: Picture) -> dict[str, float]:
        """Return the difference by concept, in the boxes of the accepted image's ledger."""
        boxes = {row.concept: row.box for row in self._result.rows}
        return {
            concept: self._difference(picture, box) for concept, box in boxes.items() if box and is_box(box)
        }
