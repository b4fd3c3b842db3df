"""The graphs for LangGraph's own server and SDK, with a context that is JSON.

Backends are built from the profile and settings of a request; checkpoints and threads are the server's.
Images are stored in the home folder under `served/pictures`, by content. Not covered: the run table, so there
are no sidecars and no `pleinair runs resume`; and access control: whoever reaches the server chooses
settings, and with them folders of this machine.
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

_CACHE_LOCK = Lock()


@dataclass(frozen=True)
class Served:
    """JSON context of a run: a profile and settings; the backends are built when a step first uses them."""

    profile: str | None = None  # None: the configured one
    settings: dict[str, Any] = field(default_factory=dict)  # dotted keys, such as {"retrieval.k": 8}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._context, name)

    @cached_property
    def _context(self) -> Context:
        from pleinair.app.engines import check
        from pleinair.app.settings import load

        settings = load(self.profile, self.settings)
        check(settings)
        with _CACHE_LOCK:  # concurrent steps must not load the same models twice
            return _built(settings.model_dump_json(), home())


@lru_cache(maxsize=4)
def _built(settings: str, places: Paths) -> Context:
    from pleinair.app.engines import build
    from pleinair.app.settings import Settings
    from pleinair.tools.storage.artifacts import ArtifactStore

    store = ArtifactStore(places.home / "served" / "pictures")
    return build(Settings.model_validate_json(settings), places, store)


def served(name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile a graph of the registry for a JSON context; raises `BadInput` for an unknown name."""
    builder: StateGraph[Any, Any, Any, Any] = copy(registry.resolve("graph", name).builder)
    builder.context_schema = Served
    return builder.compile(name=name)


crossmodal = served("crossmodal")
direct = served("direct")
imagerag = served("imagerag")
pleinair = served("pleinair")
react = served("react")
realrag = served("realrag")
