"""Python interface: draw a prompt, resume or cancel a run."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from typing_extensions import Unpack

from pleinair.app.models.pins import require_pins
from pleinair.app.parts import OwnParts, has_parts, require_parts, split_parts, with_parts
from pleinair.app.paths import Paths
from pleinair.app.runs.ahead import Ahead, split_runs
from pleinair.app.runs.at_once import results_of
from pleinair.app.runs.by_workers import await_workers, client_here, deliver_here
from pleinair.app.runs.edits import fit_base, read_base, require_edits
from pleinair.app.runs.events import OnEvent, has_image
from pleinair.app.runs.prompts import request_from
from pleinair.app.runs.request import (
    DrawRequest,
    input_reference,
    read_input_image,
    read_input_images,
    read_request,
    require_input_images,
    require_slots,
    store_base,
    store_input_images,
)
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Busy, Finished, Runs, Waiting, no_question
from pleinair.app.runs.tables import OPEN
from pleinair.app.settings import (
    OnPreview,
    Renamed,
    checked_overrides,
    home_of,
    license_setting,
    load,
    require_shared,
)
from pleinair.tools.prompt_options import check_placeholders
from pleinair.tools.registry import did_you_mean
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.types import BadInput, ImageOptions, NotFound

if TYPE_CHECKING:
    from PIL import Image

    from pleinair.app.estimate.estimate import Estimate
    from pleinair.app.runs.results import Result


class DrawOptions(OwnParts, total=False):
    """Options of `draw`, `submit` and `estimate`; what is omitted or None follows the settings."""

    graph: str  # a name of the registry; "pleinair" by default
    profile: str | None  # the backends; the configured one by default
    seed: int | None  # 0 to 2**63 - 1; chosen at random by default
    width: int | None  # pixels, like `height`; default of all image options: the generator's own
    height: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    reference_strength: float | None  # 0 to 1
    negative_prompt: str | None  # what the image must not show, if the generator accepts one
    out: str | Path | None  # the folder for the results
    license: Licenses | None  # of references: "any", "known", or "free" to use commercially and to change
    name: str  # in those of the files, before the run's id; the prompt after it by default
    overrides: Mapping[str, Any] | None  # dotted settings, such as {"retrieval.k": 8}
    idempotency_key: str | None  # of the request: a second call with it returns the same runs
    strip_metadata: bool  # write no metadata into the PNG
    yes: bool  # several images that only the prompt asks for, of a generator that costs money, are confirmed
    input_images: Sequence[str | Path | bytes]  # files or their bytes, if the graph takes them as references
    base: str | Path | bytes | None  # image of which only a part changes; graph "direct"
    mask: str | Path | bytes | None  # of its size: alpha 0 is what changes; None: the base's own alpha tells
    pictures: Sequence[str | Path]  # deprecated: `input_images`


@overload
def draw(
    prompt: str,
    *,
    num_images: None = None,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    **options: Unpack[DrawOptions],
) -> Result: ...
@overload
def draw(
    prompt: str,
    *,
    num_images: int,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    **options: Unpack[DrawOptions],
) -> list[Result]: ...
def draw(
    prompt: str,
    *,
    num_images: int | None = None,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    **options: Unpack[DrawOptions],
) -> Result | list[Result]:
    """Generate an image for a prompt and return the result, with the best attempt.

    The same key and request return the same runs again, finished, or continued if their process has died.

    Args:
        prompt: 1 to 2,000 characters; options in it (docs/prompts.md) count where no argument sets them.
        num_images: with a number, a list of as many results: runs of one group with consecutive seeds, each
            with the full budget.
        on_event: receives every event, from the threads of the run.
        on_preview: receives small PNGs of the image in progress, at most four a second.
        options: see `DrawOptions`.

    Raises:
        BadInput: a value is unusable; nothing was written.
        Busy: another process works on this run.
    """
    runs = submit_images(prompt, num_images=1 if num_images is None else num_images, **options)
    parts = split_parts(options)
    results = _finish_all(runs, on_event, on_preview, parts)
    return results[0] if num_images is None else results


def submit(prompt: str, **options: Unpack[DrawOptions]) -> Run:
    """Validate a request and write its row, for `finish` to run; arguments and errors as of `draw`."""
    return submit_images(prompt, **options)[0]


def submit_images(prompt: str, *, num_images: int | None = 1, **options: Unpack[DrawOptions]) -> list[Run]:
    """Validate a request for several images and write a row for each; arguments and errors as of `draw`.

    With `num_images` None the number in the prompt counts.
    """
    request, parts = _stored_request(prompt, num_images, options), split_parts(options)
    client = client_here() if _is_for_workers(parts) else None
    return run_table().add_group(request.rows(), request.idempotency_key, client=client)


def _is_for_workers(parts: OwnParts) -> bool:
    """Return whether workers execute the runs of this machine; those with parts of a program do so here."""
    return not parts and load(untrusted="ignore").cluster.workers


def enqueue(
    prompt: str,
    *,
    client: str,
    most: int | None = None,
    num_images: int | None = 1,
    **options: Unpack[DrawOptions],
) -> list[Run]:
    """Validate a request and write a row for each image, on disk on return, for a worker to execute.

    Args:
        prompt: as of `draw`, like the options.
        client: who asks; the clients' runs take turns.
        most: runs that may wait; None: any number.
        num_images: None: the number in the prompt.
        options: see `DrawOptions`.

    Raises:
        BadInput: a value is unusable; nothing was written.
        QueueFull: more runs than `most` would wait; its `retry_after` says for how long, in seconds.
    """
    if not options.get("idempotency_key"):
        run_table().require_room(num_images or 1, most)  # before the work of reading the request
    if parts := split_parts(options):
        raise BadInput(
            f"{next(iter(parts))}: an object of this program, which no worker has",
            "Use `draw` or `stream`, which execute the run here, or the name of a backend.",
        )
    request = _stored_request(prompt, num_images, options)
    return run_table().add_group(request.rows(), request.idempotency_key, client=client, most=most)


def validate(prompt: str, *, num_images: int | None = 1, **options: Unpack[DrawOptions]) -> DrawRequest:
    """Validate a request as `submit` does and return it, without its input images; writes nothing."""
    request = _request(prompt, num_images, options)[0]
    _require_executable(request, split_parts(options))
    return request


def estimate(prompt: str, *, num_images: int | None = None, **options: Unpack[DrawOptions]) -> Estimate:
    """Validate a request as `submit` does and estimate its images, calls, time and cost; writes nothing."""
    from pleinair.app.estimate.estimate import estimate_of

    return estimate_of(_request(prompt, num_images, {**options, "yes": True})[0], home())


def _stored_request(prompt: str, num_images: int | None, options: DrawOptions) -> DrawRequest:
    """Return a validated request that can be executed here, with its input images in the home."""
    request, images, base = _request(prompt, num_images, options)
    _require_executable(request, split_parts(options))
    stored = {"base": store_base(base, home())} if base else {}
    return request.model_copy(update={"pictures": store_input_images(images, home()), **stored})


def _require_executable(request: DrawRequest, parts: OwnParts) -> None:
    """Raise `BadInput` unless the models of a request are pinned, and on this machine or handed over."""
    from pleinair.app.models.ready import require_ready

    require_pins(request.settings)
    if not _is_for_workers(parts):
        require_ready(request.settings)
    require_parts(request.settings, parts)
    home().require_objects()


def _request(
    prompt: str, num_images: int | None, options: DrawOptions
) -> tuple[DrawRequest, list[Image.Image], Image.Image | None]:
    """Return a validated request, and its input images and base before they are stored."""
    fields: dict[str, Any] = {"graph": "pleinair", "seed": None, **options}
    if "pictures" in fields:
        warnings.warn("pictures is now called input_images", Renamed, stacklevel=5)
        fields.setdefault("input_images", fields.pop("pictures"))
    _require_options(fields)
    files, overrides = fields.pop("input_images", ()), checked_overrides(fields.pop("overrides", None))
    base, mask = fields.pop("base", None), fields.pop("mask", None)
    is_edit = base is not None or mask is not None
    overrides |= license_setting(fields.pop("license", None))
    parts = split_parts(fields)
    for name in OwnParts.__annotations__:
        fields.pop(name, None)
    for name in ImageOptions.model_fields:
        if (value := fields.pop(name, None)) is not None:
            overrides[f"image.{name}"] = value
    settings = with_parts(require_shared(load(fields.pop("profile", None), overrides)), parts, overrides)
    explicit = [name for name in ImageOptions.model_fields if f"image.{name}" in overrides]
    request = request_from(prompt, num_images=num_images, settings=settings, explicit=explicit, **fields)
    if is_edit:
        require_edits(request.graph, request.settings)
    images = read_input_images(files, request.graph)
    if images:
        require_slots(len(images), request.settings, beside_base=is_edit)
    check_placeholders(request.prompt, len(images))
    if not is_edit:
        return request, images, None
    base_image, settings = fit_base(read_base(base, mask), request.settings)
    return request.model_copy(update={"settings": settings}), images, base_image


def _require_options(fields: Mapping[str, Any]) -> None:
    """Raise `BadInput` for a keyword argument that is no option of a request."""
    for name, value in fields.items():
        if name not in DrawOptions.__annotations__ and name not in DrawRequest.model_fields:
            accepted = sorted(DrawOptions.__annotations__.keys() - {"pictures"})
            hint = did_you_mean(name, accepted)
            message = f"{name} = {repr(value)[:80]}: unknown option; accepted: {', '.join(accepted)}.{hint}"
            raise BadInput(message, field=name)


def _finish_all(
    runs: Sequence[Run], on_event: OnEvent | None, on_preview: OnPreview | None, parts: OwnParts
) -> list[Result]:
    """Finish the runs of one request, as many at once as the generator has devices."""
    stop = threading.Event()

    def finish_share(share: Sequence[Run]) -> list[Result]:
        ahead = Ahead(share)
        return [finish(run, on_event, on_preview, ahead=ahead, stop=stop, **parts) for run in share]

    devices, shares = shared_runs(runs)
    with closing(results_of(shares, finish_share, devices, stop)) as results:
        return [result for share in results for result in share]


def shared_runs(runs: Sequence[Run]) -> tuple[int, list[Sequence[Run]]]:
    """Return how many devices the runs of one request may use at once, at least 1, and their shares."""
    from pleinair.app.engines import devices_of

    settings = read_request(runs[0].request_json).settings
    devices = len(devices_of(settings))
    if min(devices, len(runs)) <= 1:
        return 1, [runs]
    return devices, split_runs(runs, devices, int(settings.generator.arguments.get("batch", 1)))


def finish(
    run: Run,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    *,
    reopen: bool = False,
    ahead: Ahead | None = None,
    stop: threading.Event | None = None,
    **parts: Unpack[OwnParts],
) -> Result:
    """Work on a run until it ends, or read one that has ended.

    Where the setting `cluster.workers` is on, workers execute it and this call waits for them. Runs of one
    request that are finished one after the other share forward passes by `ahead`. A run that was submitted
    with `parts` needs them again. Raises `Busy`, `Released` once `stop` is set, after which the
    next call goes on, and `BadInput` for parts that are missing or not those of the run.
    """
    from pleinair.app.runs.results import result_of
    from pleinair.app.runs.runner import perform

    runs, places = run_table(), home()
    with suppress(Finished, Waiting):  # another process has just worked on it
        if run.status not in OPEN and not (reopen and run.status == "failed"):
            pass
        elif _is_for_workers(parts):
            await_workers(runs, run, places, on_event, reopen=reopen, stop=stop)
        else:
            perform(
                runs, run, places, on_event, on_preview, reopen=reopen, stop=stop, parts=parts, ahead=ahead
            )
    ended = runs.get(run.id)
    if places.database:
        deliver_here(ended, places)
    return result_of(ended)


def resume(run_id: str, on_event: OnEvent | None = None, **parts: Unpack[OwnParts]) -> Result:
    """Continue a run whose process has died, or retry a failed one from its last step.

    An earlier request to cancel is dropped, unless it has ended the run.

    Raises `BadInput` for an unknown run, or without its `parts`, and `Busy` while its process lives.
    """
    return finish(run_table().get(run_id), on_event, reopen=True, **parts)


def answer(
    run_id: str,
    approval: Mapping[str, Any] | bool = True,
    *,
    input_images: Mapping[str, str | Path | bytes] | None = None,
    question: str = "",
    client: str | None = None,
) -> Run:
    """Answer the question of a run that waits for approval, and return its row, ready for `finish`.

    Args:
        run_id: of the run.
        approval: True approves, False stops the run with the images so far; or fields of `Approval`, such as
            {"vetoes": [id], "hits": {concept: id}}.
        input_images: files of your own, or their bytes, that are to show concepts, by the concept.
        question: `key` of the question that is answered; the one for which the run waits by default.
        client: in whose name a worker executes the rest of a run that was not queued for workers; one with
            parts of a program waits for that.

    Raises:
        BadInput: the run waits for nothing, or for another answer, or the answer does not fit its question.
    """
    from pleinair.agent.approval.nodes import read_approval

    run = run_table().get(run_id)
    if run.question is None:
        raise BadInput(no_question(run))
    if question and question != run.question.key:
        raise BadInput(f"run {run_id}: that question has been answered; it asks another one now")
    images = {name: (file, read_input_image(file)) for name, file in (input_images or {}).items()}
    checked = read_approval(approval, run.question)
    given = [*checked.given]
    for name, (file, image) in images.items():
        (picture,) = store_input_images([image], home())
        given.append(input_reference(name, picture, "image" if isinstance(file, bytes) else Path(file).name))
    fields = checked.model_dump(mode="json", exclude={"before"}) | {"given": given}
    checked = read_approval(fields, run.question)
    require_input_images([reference.picture for reference in checked.given], home())
    by_program = has_parts(read_request(run.request_json).settings)
    return run_table().answer(run_id, run.question.id, checked, None if by_program else client)


def cancel(run_id: str) -> Run:
    """Cancel a run, at once if no process holds it, and return its row.

    A live holder stops at its next diffusion step or step of the graph, and keeps the best image; a worker
    process is stopped, or killed, within `worker.grace` seconds.
    """
    return _end(run_id, run_table().request_cancel)


def accept(run_id: str) -> Run:
    """End a run as accepted with its best image so far, when and as `cancel` does, and return its row.

    Raises `BadInput` for a run that has no image yet, or has ended.
    """
    run = run_table().get(run_id)
    if run.status not in OPEN:
        raise BadInput(f"run {run_id}: it has ended already ({run.status})")
    if not has_image(home().events(run_id)):
        raise BadInput(f"run {run_id}: it has no image yet that could be accepted", "Wait for its draft.")
    return _end(run_id, run_table().request_accept)


def _end(run_id: str, request: Callable[[str], Run]) -> Run:
    """Request the end of a run and carry it out, unless a process works on the run."""
    from pleinair.app.runs.runner import perform

    try:
        with suppress(Finished, Waiting):
            perform(run_table(), request(run_id), home())
    except Busy:  # its holder stops, unless it has only just claimed the run
        request(run_id)
    return run_table().get(run_id)


def find(name: str) -> Run:
    """Return a run by its id, an unambiguous beginning of it, or as "last".

    Raises `BadInput` for no run or an ambiguous beginning.
    """
    last = name == "last"
    runs = run_table().newest(1 if last else 2, "" if last else name) if name else []
    if len(runs) > 1:
        raise BadInput(f"run {name!r}: ambiguous", "Give more characters of its id.")
    if not runs and last:
        raise BadInput("there are no runs yet")
    if not runs:
        raise NotFound(f"run {name!r}: there is none", "`pleinair runs list` shows them.")
    return runs[0]


def run_table() -> Runs:
    """Return the run table of the configured home."""
    return Runs(home().table)


def home() -> Paths:
    """Return the configured home."""
    return home_of(load(untrusted="ignore"))
