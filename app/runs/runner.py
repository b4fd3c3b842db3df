"""Execution of a run from its row to its outcome, resumable after crashes."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.engines import DEVICE, import_libraries, index_folder
from pleinair.app.paths import Paths
from pleinair.app.runs.device import device_held, device_of
from pleinair.app.runs.events import (
    Asked,
    Ended,
    EventLog,
    OnEvent,
    Progress,
    Snapshot,
    payloads,
    read_readable,
)
from pleinair.app.runs.history import config_of
from pleinair.app.runs.lease import STOPPED, Lease, Released
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import deliver, versions
from pleinair.app.runs.row import ACCEPT, LeaseLost, Run
from pleinair.app.runs.store import Runs
from pleinair.app.runs.stream import End, compiled, stream
from pleinair.app.runs.work import Work
from pleinair.app.settings import OnPreview
from pleinair.tools.deadline import RUN_WAIT, OutOfTime, deadline, finish_in_time
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Cancelled,
    Ending,
    Limit,
    Outcome,
    PleinairError,
    Refused,
    Usage,
    limit_reached,
)

MOST_DEATHS = 3  # of the processes of a run, after which it is not tried again
ACCEPTED = "you accepted this image"  # reasons of endings that a person requested


def perform(
    runs: Runs,
    run: Run,
    places: Paths,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    *,
    reopen: bool = False,
    stop: threading.Event | None = None,
) -> Run:
    """Run or continue a run until it ends, and return its row.

    Previews are made for `on_preview` unless the settings disable them, and are not logged. `budget.seconds`
    counts from this call, without the imports of libraries, and ends the run within 5 s more. Raises `Busy`
    or `LeaseLost` if another process has the run, `Finished` if it has ended, and `Released` after the step
    in which `stop` was set: the next call goes on from there.
    """
    started = time.monotonic()
    request = read_request(run.request_json)
    with runs, Lease(runs, run.id, reopen=reopen, stop=stop) as lease:
        with closing(EventLog(places.events(run.id), on_event)) as log:
            previews = on_preview if request.settings.output.previews else None
            work = Work(run, request, places, lease, log, previews)
            work, end_of_work = _given_up(work) or _ended_by_person(work) or _run_on_device(work, started)
            if isinstance(end_of_work, ApprovalRequest):
                work.write(Asked(question=end_of_work))
                if lease.wait(end_of_work):
                    return runs.get(run.id)
            outcome = _as_requested(work, end_of_work)
            _set_encoder_id(work)
            end = _deliver(work, outcome)
            lease.guard()
            work.write(end)
            lease.commit(end.outcome)
    return runs.get(run.id)


def _given_up(work: Work) -> tuple[Work, Outcome] | None:
    """Return the outcome of a run whose processes died again and again, None for any other."""
    if (deaths := work.lease.guard().deaths) < MOST_DEATHS or not (rest := _as_logged(work)):
        return None
    remedy = f"`pleinair runs resume {work.run.id}` tries it once more."
    return rest, _failure("failed", PleinairError(f"its process died {deaths} times", remedy), rest)


def _ended_by_person(work: Work) -> tuple[Work, Outcome] | None:
    """Return the outcome of a run whose end a person requested before its next step, None for any other.

    A fork that has not begun has the images of its parent, which it first has to copy.
    """
    has_begun = (work.folder / "checkpoints.sqlite").exists()
    if not work.lease.guard().cancel_requested or (work.request.parent and not has_begun):
        return None
    rest = _as_logged(work)
    return (rest, _failure("cancelled", Cancelled(STOPPED), rest)) if rest else None


def _as_logged(work: Work) -> Work | None:
    """Return the work as its last holder left it: the state of the checkpoint, the models of the log.

    None for a damaged checkpoint, which the run itself reports.
    """
    try:
        values = _stored_state(work)
    except BadInput:
        return None
    snapshots = payloads(read_readable(work.places.events(work.run.id)).events, Snapshot)
    models = next((logged.models for logged in reversed(snapshots) if logged.models), {})
    return replace(work, values=values, models=models)


def _as_requested(work: Work, end: End) -> Outcome:
    """Return how a run ends: as accepted, whatever else has happened, if a person accepted its best image."""
    from pleinair.agent.ledger import best

    attempts = [Attempt.model_validate(attempt) for attempt in work.values.get("attempts", [])]
    if attempts and work.lease.guard().cancel_requested == ACCEPT:
        return Outcome(ending="accepted", reason=ACCEPTED, accepted_by="person", best=best(attempts))
    return _failure("cancelled", Cancelled(STOPPED), work) if isinstance(end, ApprovalRequest) else end


def _run_on_device(work: Work, started: float) -> tuple[Work, End]:
    """Run the graph while the generator's device is held; the wait for it counts no seconds."""
    asked = time.monotonic()
    try:
        with _device_held(work):
            return _run_in_time(work, started + time.monotonic() - asked)
    except Cancelled as error:  # while it waited
        rest = replace(work, values=_stored_state(work))
        return rest, _failure("cancelled", error, rest)


def _run_in_time(work: Work, started: float) -> tuple[Work, End]:
    """Run the graph within the budget's seconds; return what its thread, or the one after it, worked with."""
    seconds = work.request.settings.budget.seconds
    if seconds is None:
        return work, _run(work)
    seconds -= time.monotonic() - started
    import_libraries(work.request.settings, work.request.graph)
    with deadline(seconds - _seconds_before(work)):
        try:
            return work, finish_in_time(lambda: _run(work), RUN_WAIT)
        except OutOfTime as error:
            work.left_behind.set()
            rest = replace(work, left_behind=threading.Event(), values=_stored_state(work))
            return rest, _failure("stopped", error, rest, "seconds")


def _stored_state(work: Work) -> dict[str, Any]:
    """Return the state of a run's last checkpoint; {} if there is none."""
    from pleinair.app.runs.checkpoints import open_saver

    with open_saver(work.folder / "checkpoints.sqlite", work.lease.guard) as saver:
        graph = compiled(work.request.graph, saver)
        return dict(graph.get_state(config_of(work.run.id)).values)


def _seconds_before(work: Work) -> float:
    """Return the seconds that earlier holders of the run spent on its steps."""
    if not (work.folder / "checkpoints.sqlite").exists():
        return 0.0
    try:
        usage = [Usage.model_validate(part) for part in _stored_state(work).get("usage", [])]
    except (PleinairError, ValueError):
        return 0.0  # damaged: the run itself reports it
    return Usage.total(usage).seconds


def _run(work: Work) -> End:
    """Run the graph to its outcome or a question, and convert errors into an outcome."""
    try:
        return stream(work)
    except (LeaseLost, Released):
        raise
    except OutOfTime as error:
        return _failure("stopped", error, work, "seconds")
    except PleinairError as error:
        cancelled, refused = isinstance(error, Cancelled), isinstance(error, Refused)
        return _failure("cancelled" if cancelled else "refused" if refused else "failed", error, work)
    except Exception as error:  # the only place where a bug becomes an outcome instead of a crash
        with suppress(OSError):  # a full disk must not hide the bug itself
            (work.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return _failure("failed", PleinairError(f"{type(error).__name__}: {error}"), work)


def _failure(ending: Ending, error: PleinairError, work: Work, limit: Limit | None = None) -> Outcome:
    """Return an outcome with the best attempt of the checkpoint.

    The usage of the failed step, which is in no checkpoint, is added to that of the run.
    """
    from pleinair.agent.ledger import best

    if error.spent != Usage():
        work.values["usage"] = [*work.values.get("usage", []), error.spent.model_dump(mode="json")]
    attempts = [Attempt.model_validate(attempt) for attempt in work.values.get("attempts", [])]
    reason = str(error)[:2000] or "no reason given"
    if limit:
        reason = limit_reached(limit, getattr(work.request.settings.budget, limit))
    return Outcome(ending=ending, reason=reason, limit=limit, best=best(attempts))


@contextmanager
def _device_held(work: Work) -> Iterator[None]:
    """Hold the device that the generator needs, if any; the number of runs ahead is logged."""
    device, logged = device_of(work.request.settings), 0

    def wait(ahead: int) -> None:
        nonlocal logged
        work.check()
        if ahead != logged:
            work.write(Progress(ahead=ahead), "device")
        logged = ahead

    folder = work.places.home / "devices"
    with device_held(folder, device, wait, DEVICE.unload) if device else nullcontext():
        yield


def _set_encoder_id(work: Work) -> None:
    """Replace the encoder's label by the id of its weights, read from the index, if it was used."""
    from pleinair.tools.retrieval.manifest import encoder_of

    if work.values.get("retrievals") and "encoder" in work.models:
        encoder = encoder_of(index_folder(work.request.settings, work.places))
        work.models["encoder"] = encoder or work.models["encoder"]


def _deliver(work: Work, outcome: Outcome) -> Ended:
    """Write the results to the request's folder; the run has failed if that is not possible."""
    store = ArtifactStore(work.folder / "pictures")
    end = Ended.model_validate(work.snapshot | {"outcome": outcome, "versions": versions()})
    try:
        deliver(work.run, work.request, end, store)
    except PleinairError as error:
        where = f" The best image is kept: {store.path(outcome.best.picture)}" if outcome.best else ""
        failed = outcome.model_copy(update={"ending": "failed", "reason": f"{error}{where}", "limit": None})
        return end.model_copy(update={"outcome": failed})
    return end
