"""What the holder of a run works with, and what it has learnt of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pleinair.app.paths import Paths
from pleinair.app.runs.events import EventLog
from pleinair.app.runs.lease import Lease
from pleinair.app.runs.request import DrawRequest
from pleinair.app.runs.store import Run
from pleinair.app.settings import OnPreview

KEPT = ("concepts", "attempts", "retrievals", "usage")  # of the state, in snapshot events


@dataclass
class Work:
    """What one holder works with, and what it has learnt when it ends."""

    run: Run
    order: DrawRequest
    places: Paths
    lease: Lease
    record: EventLog
    on_preview: OnPreview | None = None  # where nobody looks no previews are made
    values: dict[str, Any] = field(default_factory=dict)  # the state that the checkpoint holds
    models: dict[str, str] = field(default_factory=dict)
    drawn: set[int] = field(default_factory=set)  # numbers of the attempts so far

    @property
    def folder(self) -> Path:
        """Name the run's own folder."""
        return self.places.run(self.run.id)

    @property
    def heading(self) -> dict[str, Any]:
        """Give what the log must know of the row."""
        asked = {"prompt": self.order.prompt, "graph": self.order.graph, "seed": self.run.seed}
        parent = self.order.parent
        branch = {"parent": {"run": parent.run, "step": parent.step}} if parent else {}
        return {"run": self.run.id, **asked, **branch, "models": self.models}

    @property
    def snapshot(self) -> dict[str, Any]:
        """Give what the checkpoint holds, for the log."""
        return {key: self.values[key] for key in KEPT if key in self.values}

    def name_encoder(self) -> None:
        """Name the encoder by its weights where it has looked something up; it is not loaded for that."""
        from pleinair.app.engines import index_folder
        from pleinair.tools.retrieval.manifest import encoder_of

        if self.values.get("retrievals") and "encoder" in self.models:
            found = encoder_of(index_folder(self.order.settings, self.places))
            self.models["encoder"] = found or self.models["encoder"]
