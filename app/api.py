"""The Python door: draw a prompt, resume a run, cancel one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.models.pins import require_pins
from pleinair.app.paths import Paths, places
from pleinair.app.runs.events import Event
from pleinair.app.runs.request import chosen_seed, keep_given, new_order, read_given
from pleinair.app.runs.store import OPEN, Busy, Finished, Run, Runs
from pleinair.app.settings import OnPreview, load
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.estimate.estimate import Estimate
    from pleinair.app.runs.results import Result

OnEvent = Callable[[Event], None]


def draw(
    prompt: str,
    *,
    graph: str = "pleinair",
    profile: str | None = None,
    seed: int | None = None,
    out: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    strip_metadata: bool = False,
    pictures: Sequence[str | Path] = (),
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
) -> Result:
    """Draw a prompt and return how it ended, with the best picture.

    The same key and request give the same run again, finished, or continued if its process has died.

    Args:
        prompt: 1 to 2,000 characters.
        graph: a name of the registry.
        profile: the engines; the configured one when None.
        seed: 0 to 2**63 - 1; drawn once when None.
        out: the folder for the results; the configured one when None.
        overrides: dotted settings, such as {"retrieval.k": 8}.
        idempotency_key: names the request, so that asking twice draws once.
        strip_metadata: leave the story out of the PNG.
        pictures: files of the user's own, for a graph that takes them; they come first and take slots.
        on_event: told every event, from the threads that work on it.
        on_preview: given small PNGs of what is being drawn, at most four a second; without it none are made.

    Raises:
        BadInput: a value is not usable; nothing was written.
        Busy: another process draws this run.
    """
    run = submit(prompt, graph, profile, seed, out, overrides, idempotency_key, strip_metadata, pictures)
    return finish(run, on_event, on_preview)


def submit(
    prompt: str,
    graph: str = "pleinair",
    profile: str | None = None,
    seed: int | None = None,
    out: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    strip_metadata: bool = False,
    pictures: Sequence[str | Path] = (),
) -> Run:
    """Check a request and write its row; `finish` then draws it. Arguments as for `draw`."""
    order = new_order(prompt, graph, seed, load(profile, overrides), out, strip_metadata)
    require_pins(order.settings)
    given = keep_given(read_given(pictures, graph), home())
    order = order.model_copy(update={"pictures": given})
    return run_table().add(order.model_dump_json(), chosen_seed(order), idempotency_key)


def estimate(
    prompt: str,
    graph: str = "pleinair",
    profile: str | None = None,
    seed: int | None = None,
    out: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    pictures: Sequence[str | Path] = (),
) -> Estimate:
    """Check a request as `submit` does and tell what it would take; builds no engine and writes nothing."""
    from pleinair.app.estimate.estimate import estimate_of

    order = new_order(prompt, graph, seed, load(profile, overrides), out, strip_metadata=False)
    read_given(pictures, graph)
    return estimate_of(order, home())


def finish(
    run: Run,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    *,
    reopen: bool = False,
) -> Result:
    """Work on a run until it ends; one that has ended is only read. Raises `Busy`."""
    from pleinair.app.runs.results import result_of
    from pleinair.app.runs.runner import perform

    runs = run_table()
    if run.status in OPEN or (reopen and run.status == "failed"):
        with suppress(Finished):  # another process was just ahead of us
            perform(runs, run, home(), on_event, on_preview, reopen=reopen)
    return result_of(runs.get(run.id))


def resume(run_id: str, on_event: OnEvent | None = None) -> Result:
    """Continue a run whose process has died, or try a failed one again from its last step.

    An earlier wish to stop is forgotten, unless the run has ended by it.

    Raises `BadInput` for an unknown run and `Busy` while its process lives.
    """
    return finish(run_table().get(run_id), on_event, reopen=True)


def cancel(run_id: str) -> Run:
    """Ask a run to stop, end it at once if nobody works on it, and return its row.

    A live holder stops at its next diffusion step or step of the graph, and keeps the best picture; a model
    in a process of its own is stopped, or killed, within `worker.grace` seconds, whatever it is at.
    """
    run = run_table().request_cancel(run_id)
    try:
        finish(run)
    except Busy:  # its holder has been told, unless it took the run up just now
        run_table().request_cancel(run_id)
    return run_table().get(run_id)


def find(name: str) -> Run:
    """Find a run by its id, by the beginning of it where no other has the same, or as "last".

    Raises `BadInput` where there is none, or more than one.
    """
    if name == "last":
        found = run_table().newest(1)
    else:
        found = run_table().newest(2, prefix=name) if name else []
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"run {name!r}: ambiguous", "Give more characters of its id.")
    if name == "last":
        raise BadInput("there are no runs yet")
    raise BadInput(f"run {name!r}: there is none", "`pleinair runs list` shows them.")


def run_table() -> Runs:
    """Open the run table of the configured home."""
    return Runs(home().table)


def home() -> Paths:
    """Find the configured home."""
    return places(load().paths.home)
