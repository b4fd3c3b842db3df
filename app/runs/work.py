"""Resources of the process that executes a run, and what it has so far."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.paths import Paths
from pleinair.app.runs.events import EventLog, Payload
from pleinair.app.runs.history import config_of
from pleinair.app.runs.lease import Lease
from pleinair.app.runs.request import DrawRequest
from pleinair.app.runs.row import LeaseLost, Run
from pleinair.app.settings import OnPreview
from pleinair.tools.deadline import check_deadline

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from pleinair.app.runs.calls import CallLog

    Graph = CompiledStateGraph[Any, Any, Any, Any]

SAVED = ("concepts", "attempts", "retrievals", "usage")  # fields of the state, in snapshots


@dataclass
class Work:
    """Resources and results of the process that holds a run."""

    run: Run
    request: DrawRequest
    places: Paths
    lease: Lease
    log: EventLog
    on_preview: OnPreview | None = None  # None: no previews are made
    values: dict[str, Any] = field(default_factory=dict)  # state of the last checkpoint
    models: dict[str, str] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)  # of the attempts so far
    left_behind: threading.Event = field(default_factory=threading.Event)  # its thread may write no more
    calls: CallLog | None = None  # None: the messages of MLLM calls are not stored

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.places.run(self.run.id)

    @property
    def snapshot(self) -> dict[str, Any]:
        """Fields of `Snapshot`, from the row and the checkpoint."""
        parent = self.request.parent
        return {
            "run": self.run.id,
            "prompt": self.request.prompt,
            "graph": self.request.graph,
            "seed": self.run.seed,
            "parent": parent and {"run": parent.run, "step": parent.step},
            "models": self.models,
            "prompt_options": self.request.prompt_options,
            "notes": self.request.notes,
            **{key: self.values[key] for key in SAVED if key in self.values},
        }

    def write(self, payload: Payload, step: str = "") -> None:
        """Append to the log."""
        self._check_current()
        self.log.write(payload, step, len(self.numbers))

    def guard(self) -> None:
        """Raise `LeaseLost` if another holder, or another thread of this one, works on the run."""
        self._check_current()
        self.lease.guard()

    def _check_current(self) -> None:
        if self.left_behind.is_set():
            raise LeaseLost(f"run {self.run.id} has ended without this step")

    def check(self) -> None:
        """Raise what stops the run: another holder, a request to cancel, the deadline."""
        self.guard()
        self.lease.check()
        check_deadline()

    def read_state(self, graph: Graph) -> None:
        """Read the state from the checkpoint, with the writes of finished tasks of an interrupted step."""
        self.values = dict(graph.get_state(config_of(self.run.id)).values)
        self.numbers.update(attempt["number"] for attempt in self.values.get("attempts", []))
