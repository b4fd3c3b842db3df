"""The graphs as LangGraph's own server and SDK take them: with a context that is JSON.

A request names a profile and single settings, and the engines are built from them here; checkpoints and
threads are the server's. Not covered: our run table, so there is no record beside a picture, and no resuming
by `pleinair runs`; and a guard: whoever reaches the server chooses settings, and so folders of this machine.
Pictures lie in the home folder under `served/pictures`, by content.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from pleinair.app.api import home
from pleinair.app.paths import Paths
from pleinair.tools import registry

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph, StateGraph

    from pleinair.agent.context import Context

BUILDING = Lock()


@dataclass(frozen=True)
class Served:
    """Choose a run's engines and knobs by names; the engines are built when a step first needs them."""

    profile: str | None = None  # the configured one when None
    settings: dict[str, Any] = field(default_factory=dict)  # dotted keys, such as {"retrieval.k": 8}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._context, name)

    @cached_property
    def _context(self) -> Context:
        from pleinair.app.engines import check
        from pleinair.app.settings import load

        chosen = load(self.profile, self.settings)
        check(chosen)
        with BUILDING:  # steps that run at once must not load the same models twice
            return _built(chosen.model_dump_json(), home())


@lru_cache(maxsize=4)
def _built(settings: str, places: Paths) -> Context:
    from pleinair.app.engines import build
    from pleinair.app.settings import Settings
    from pleinair.tools.storage.artifacts import ArtifactStore

    store = ArtifactStore(places.home / "served" / "pictures")
    return build(Settings.model_validate_json(settings), places, store)


def served(name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile a graph of the registry for a context that is JSON; the checkpointer is the server's.

    Raises `BadInput` for an unknown name.
    """
    builder: StateGraph[Any, Any, Any, Any] = copy(registry.resolve("graph", name).builder)
    builder.context_schema = Served
    return builder.compile(name=name)


crossmodal = served("crossmodal")
direct = served("direct")
imagerag = served("imagerag")
pleinair = served("pleinair")
react = served("react")
realrag = served("realrag")
