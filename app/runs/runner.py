"""Execution of a run from its row to its outcome, resumable after crashes."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.engines import device_lock, import_libraries
from pleinair.app.parts import NO_PARTS, OwnParts, has_parts, require_parts
from pleinair.app.paths import Paths
from pleinair.app.runs.ahead import Ahead
from pleinair.app.runs.device import device_held, needed_devices
from pleinair.app.runs.endings import as_logged, as_requested, delivered, failure, set_index_facts
from pleinair.app.runs.events import Asked, EventLog, OnEvent, Progress
from pleinair.app.runs.execution import End, Work, stored_state, stream
from pleinair.app.runs.lease import STOPPED, Lease, Released
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Runs, Waiting
from pleinair.app.settings import OnPreview
from pleinair.tools.deadline import RUN_WAIT, OutOfTime, deadline, finish_in_time
from pleinair.tools.registry import resolve
from pleinair.tools.storage.away import Away
from pleinair.tools.types import Cancelled, Outcome, PleinairError, Refused, Usage
from pleinair.tools.worker.worker import ProcessDied

log = logging.getLogger(__name__)
MOST_DEATHS = 3  # of the processes of a run, after which it is not tried again


def perform(
    runs: Runs,
    run: Run,
    places: Paths,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    *,
    reopen: bool = False,
    stop: threading.Event | None = None,
    parts: OwnParts | None = None,
    ahead: Ahead | None = None,
) -> Run:
    """Run or continue a run until it ends, and return its row.

    Previews are made for `on_preview` unless the settings disable them, and are not logged. `budget.seconds`
    counts from this call, without the imports of libraries, and ends the run within 5 s more. Raises `Busy`
    or `LeaseLost` if another process has the run, `Finished` if it has ended, and `Released` after the step
    in which `stop` was set: the next call goes on from there. Raises `BadInput` for a run whose program has
    not handed over its `parts`, which only end a run that is to be cancelled. Runs of one request that are
    performed one after the other share forward passes by `ahead`.
    """
    started = time.monotonic()
    request = read_request(run.request_json)
    ends = run.cancel_requested and not reopen
    checked = NO_PARTS if ends else require_parts(request.settings, parts or {}, f"run {run.id}")
    with runs, _traced(run.id, request, places), Lease(runs, run.id, reopen=reopen, stop=stop) as lease:
        with closing(EventLog(places.events(run.id), on_event, lease.fence)) as log:
            previews = on_preview if request.settings.output.previews else None
            work = Work(run, request, places, lease, log, previews, checked, ahead=ahead)
            work, end_of_work = _given_up(work) or _ended_by_person(work) or _run_on_device(work, started)
            if isinstance(end_of_work, ApprovalRequest):
                work.write(Asked(question=end_of_work))
                if lease.wait(end_of_work):
                    return runs.get(run.id)
            outcome = as_requested(work, end_of_work)
            set_index_facts(work)
            end = delivered(work, outcome)
            lease.guard()
            work.write(end)
            lease.commit(end.outcome)
    return runs.get(run.id)


@contextmanager
def _traced(run_id: str, request: DrawRequest, places: Paths) -> Iterator[None]:
    """Send what has happened in the block to the configured collector, if any, unless others have the run."""
    try:
        yield
    except (Busy, Finished, LeaseLost, Waiting):
        raise
    except BaseException:
        _send_trace(run_id, request, places)
        raise
    _send_trace(run_id, request, places)


def _send_trace(run_id: str, request: DrawRequest, places: Paths) -> None:
    if request.settings.tracing.otlp:
        resolve("exporter", "otlp")(run_id, places)


def _given_up(work: Work) -> tuple[Work, Outcome] | None:
    """Return the outcome of a run whose processes died again and again, None for any other."""
    if (deaths := work.lease.guard().deaths) < MOST_DEATHS or not (rest := as_logged(work)):
        return None
    by_program = has_parts(work.request.settings)
    command = "Its program, by `resume`," if by_program else f"`pleinair runs resume {work.run.id}`"
    remedy = f"{command} tries it once more."
    return rest, failure("failed", PleinairError(f"its process died {deaths} times", remedy), rest)


def _ended_by_person(work: Work) -> tuple[Work, Outcome] | None:
    """Return the outcome of a run whose end a person requested before its next step, None for any other.

    A fork that has not begun has the images of its parent, which it first has to copy.
    """
    from pleinair.app.runs.checkpoints import has_begun

    is_new = work.request.parent and not has_begun(work.places, work.run.id)
    if not work.lease.guard().cancel_requested or is_new:
        return None
    rest = as_logged(work)
    return (rest, failure("cancelled", Cancelled(STOPPED), rest)) if rest else None


def _run_on_device(work: Work, started: float) -> tuple[Work, End]:
    """Run the graph while a device of the generator is held; the wait for it counts no seconds.

    If the generator's process dies, the run goes on with its last step on another device of the settings.
    """
    devices = needed_devices(work.request.settings)
    try:
        while True:
            asked, work.spare_devices = time.monotonic(), len(devices) > 1
            try:
                with _device_held(work, devices):
                    return _run_in_time(work, started + time.monotonic() - asked)
            except ProcessDied as error:
                devices = tuple(device for device in devices if device != work.device)
                log.warning("Run %s goes on with %s: %s", work.run.id, " or ".join(devices), error)
            started = time.monotonic()
    except Cancelled as error:  # while it waited
        rest = replace(work, values=stored_state(work))
        return rest, failure("cancelled", error, rest)


@contextmanager
def _device_held(work: Work, devices: Sequence[str]) -> Iterator[None]:
    """Acquire a device that the generator needs, if any, as that of the work; the runs ahead are logged."""
    logged = 0

    def wait(ahead: int) -> None:
        nonlocal logged
        work.check()
        if ahead != logged:
            work.write(Progress(ahead=ahead), "device")
        logged = ahead

    folder = work.places.home / "devices"
    with device_held(folder, devices, wait, _unload) if devices else nullcontext("") as work.device:
        yield


def _unload(device: str) -> None:
    device_lock(device).unload()


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
            rest = replace(work, left_behind=threading.Event(), values=stored_state(work))
            return rest, failure("stopped", error, rest, "seconds")


def _seconds_before(work: Work) -> float:
    """Return the seconds that earlier holders of the run spent on its steps."""
    from pleinair.app.runs.checkpoints import has_begun

    if not has_begun(work.places, work.run.id):
        return 0.0
    try:
        usage = [Usage.model_validate(part) for part in stored_state(work).get("usage", [])]
    except Away:
        raise
    except (PleinairError, ValueError):
        return 0.0  # damaged: the run itself reports it
    return Usage.total(usage).seconds


def _run(work: Work) -> End:
    """Run the graph to its outcome or a question, and convert errors into an outcome."""
    try:
        return stream(work)
    except (LeaseLost, Released):
        raise
    except Away as error:
        error.remedy = f"Once it is back, a worker or `pleinair runs resume {work.run.id}` continues the run."
        raise
    except OutOfTime as error:
        return failure("stopped", error, work, "seconds")
    except PleinairError as error:
        if isinstance(error, ProcessDied) and work.spare_devices:
            raise
        cancelled, refused = isinstance(error, Cancelled), isinstance(error, Refused)
        return failure("cancelled" if cancelled else "refused" if refused else "failed", error, work)
    except Exception as error:  # the only place where a bug becomes an outcome instead of a crash
        with suppress(PleinairError):  # a full disk must not hide the bug itself
            text = traceback.format_exc().encode("utf-8", "replace")
            work.places.files(work.run.id).write("traceback.txt", text)
        return failure("failed", PleinairError(f"{type(error).__name__}: {error}".removesuffix(": ")), work)
