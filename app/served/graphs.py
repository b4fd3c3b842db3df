"""The graphs for LangGraph's own server and SDK, with a context that is JSON.

Backends are built from the profile and settings of a request; checkpoints and threads are the server's.
Images are stored in the home folder under `served/pictures`, by content. Not covered: the run table, so there
are no sidecars and no `pleinair runs resume`; and access control: whoever reaches the server chooses
settings, and with them folders of this machine.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from pleinair.app.api import home
from pleinair.app.paths import Paths
from pleinair.tools import registry
from pleinair.tools.arguments import check_values
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from pleinair.agent.context import Context, ImageUrl
    from pleinair.agent.graph import CheckedGraph

_CACHE_LOCK = Lock()


@dataclass(frozen=True)
class Served:
    """JSON context of a run: a profile and settings."""

    profile: str | None = None  # None: the configured one
    settings: dict[str, Any] = field(default_factory=dict)  # dotted keys or tables: {"retrieval.k": 8}
    # form of the output's `image_url`: the PNG itself, its path on the server, or the URL of its file there
    image_url: Literal["data", "link", "file"] | None = None


def context_of(value: Any, graph: str, image_url: ImageUrl = "data") -> Context:
    """Return the context of a profile and settings; the models are loaded when a step first uses them.

    Args:
        graph: the name of the graph, which may need a library or a trained retriever.
        value: a `Served`, a dict of its fields, or None for the configured settings.
        image_url: the form of the output's field where `value` does not say it.

    Raises:
        BadInput: the value, a setting or what it names is not usable.
    """
    from pleinair.app.models.pins import require_pins
    from pleinair.app.runs.request import check_settings
    from pleinair.app.settings import load

    request = value if isinstance(value, Served) else _served(value)
    settings = load(request.profile, request.settings, origin="context")
    check_settings(settings, graph)
    require_pins(settings)
    with _CACHE_LOCK:  # concurrent runs must not load the same models twice
        context = _built(settings.model_dump_json(), home())
    return replace(context, image_url=request.image_url or image_url)


def _served(value: Any) -> Served:
    accepted = [part.name for part in fields(Served)]
    if value is not None and not isinstance(value, dict):
        raise BadInput(
            f"context: {type(value).__name__}; wanted a `pleinair.agent.context.Context`, a dict with "
            f"{', '.join(accepted)}, or an object or dict that has one of these as `pleinair`"
        )
    for key in value or ():
        if key not in accepted:
            hint = registry.did_you_mean(str(key), accepted)
            raise BadInput(f"context: unknown key {key!r}; accepted: {', '.join(accepted)}.{hint}")
    values = {key: item for key, item in (value or {}).items() if item is not None}
    check_values(Served, values, "context")
    return Served(**values)


@lru_cache(maxsize=4)
def _built(settings: str, places: Paths) -> Context:
    from pleinair.app.engines import build
    from pleinair.app.settings import Settings
    from pleinair.tools.storage.artifacts import ArtifactStore

    return build(Settings.model_validate_json(settings), places, ArtifactStore(places.served_images))


def served(name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile a graph of the registry for a JSON context; raises `BadInput` for an unknown name."""
    builder: CheckedGraph = copy(registry.resolve("graph", name).builder)
    builder.context_schema = Served
    builder.image_url = "data"
    return builder.compile(name=name)


crossmodal = served("crossmodal")
direct = served("direct")
imagerag = served("imagerag")
pleinair = served("pleinair")
react = served("react")
realrag = served("realrag")
