"""How a run ends: by its graph, a person, a fault or a limit; and the delivery of its results."""

from __future__ import annotations

from dataclasses import replace

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.agent.ledger import best
from pleinair.app.libraries import index_age, index_folder
from pleinair.app.parts import has_own_retriever
from pleinair.app.runs.events import Ended, Snapshot, payloads, read_readable
from pleinair.app.runs.execution import End, Work, stored_state
from pleinair.app.runs.lease import STOPPED
from pleinair.app.runs.results import deliver, versions
from pleinair.app.runs.row import ACCEPT
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.away import Away
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Cancelled,
    Ending,
    Limit,
    Outcome,
    PleinairError,
    Usage,
    limit_reached,
)

ACCEPTED = "you accepted this image"  # reasons of endings that a person requested


def failure(ending: Ending, error: PleinairError, work: Work, limit: Limit | None = None) -> Outcome:
    """Return an outcome with the best attempt of the checkpoint.

    The usage of the failed step, which is in no checkpoint, is added to that of the run.
    """
    if error.spent != Usage():
        work.values["usage"] = [*work.values.get("usage", []), error.spent.model_dump(mode="json")]
    attempts = [Attempt.model_validate(attempt) for attempt in work.values.get("attempts", [])]
    reason = str(error)[:2000] or "no reason given"
    if limit:
        reason = limit_reached(limit, getattr(work.request.settings.budget, limit))
    return Outcome(ending=ending, reason=reason, limit=limit, best=best(attempts))


def as_requested(work: Work, end: End) -> Outcome:
    """Return how a run ends: as accepted, whatever else has happened, if a person accepted its best image."""
    attempts = [Attempt.model_validate(attempt) for attempt in work.values.get("attempts", [])]
    if attempts and work.lease.guard().cancel_requested == ACCEPT:
        return Outcome(ending="accepted", reason=ACCEPTED, accepted_by="person", best=best(attempts))
    return failure("cancelled", Cancelled(STOPPED), work) if isinstance(end, ApprovalRequest) else end


def as_logged(work: Work) -> Work | None:
    """Return the work as its last holder left it: the state of the checkpoint, the models of the log.

    None for a damaged checkpoint, which the run itself reports.
    """
    try:
        values = stored_state(work)
    except BadInput:
        return None
    snapshots = payloads(read_readable(work.places.events(work.run.id)).events, Snapshot)
    models = next((logged.models for logged in reversed(snapshots) if logged.models), {})
    return replace(work, values=values, models=models)


def set_index_facts(work: Work) -> None:
    """Set the encoder's id, in place of its label, and the age of the index, if a run has used one."""
    from pleinair.tools.retrieval.manifest import encoder_of

    folder = index_folder(work.request.settings, work.places)
    if work.values.get("retrievals") and "encoder" in work.models:
        work.models["encoder"] = encoder_of(folder) or work.models["encoder"]
    if work.values.get("retrievals") and not has_own_retriever(work.request.settings):
        work.library = index_age(work.request.settings, work.places)


def delivered(work: Work, outcome: Outcome) -> Ended:
    """Write the results to the request's folder; the run has failed if that is not possible.

    A worker of several machines leaves that to the program that waits for the run.
    """
    store = ArtifactStore(work.places.pictures(work.run.id))
    end = Ended.model_validate(work.snapshot | {"outcome": outcome, "versions": versions()})
    if work.places.database and work.run.client is not None:
        return end  # the folder is one of the machine that has requested the run
    try:
        deliver(work.run, work.request, end, store)
    except Away:
        raise
    except PleinairError as error:
        where = f" The best image is kept: {store.path(outcome.best.picture)}" if outcome.best else ""
        failed = outcome.model_copy(update={"ending": "failed", "reason": f"{error}{where}", "limit": None})
        return end.model_copy(update={"outcome": failed})
    return end
