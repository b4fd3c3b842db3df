"""The first step of every graph: a thread may hold one request after the other, each answered for itself."""

from __future__ import annotations

from typing import Any, TypeVar

from langgraph.runtime import Runtime
from langgraph.types import Overwrite

from pleinair.agent.context import Context
from pleinair.agent.state import Input, State, plain
from pleinair.tools.types import BadInput

# LangGraph hands a node whose state is no class the graph's own state, with the fields that only it has.
AnyState = TypeVar("AnyState", bound=State)


def begin(state: AnyState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Forget what an earlier request of the thread came to; what a caller may give stays as it is.

    It runs for every input and for no resume: a request that goes on keeps all that it has.

    Raises:
        BadInput: the graph was called without a context.
    """
    if runtime.context is None:
        raise BadInput(
            "There is no context: wanted graph.invoke(…, context=…) with a `pleinair.agent.context.Context`, "
            "which `pleinair.app.engines.build` makes; graphs of `pleinair.app.served` take {'settings': {}}."
        )
    return forgotten(state)


def forgotten(state: State) -> dict[str, Any]:
    """Give the update that empties every field of one request; nothing where all are empty."""
    fields = type(state).model_fields
    own = {name: fields[name] for name in fields.keys() - given_fields(type(state))}
    empty = {name: one.get_default(call_default_factory=True) for name, one in own.items()}
    old = [name for name in sorted(own) if getattr(state, name) != empty[name]]
    merged = {name for name in old if any(map(callable, own[name].metadata))}  # by a reducer
    return {name: Overwrite(empty[name]) if name in merged else plain(empty[name]) for name in old}


def given_fields(state: type[State]) -> set[str]:
    """List the fields of a state that a caller gives: those of its input."""
    inputs = [one for one in state.__mro__ if issubclass(one, Input) and not issubclass(one, State)]
    return {name for one in inputs for name in one.model_fields}
