"""Graphs that validate input from outside once, before their first node.

LangGraph itself ignores unknown keys of an input, and builds the state anew for every node.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from pleinair.agent.state import check_prompt
from pleinair.tools.registry import did_you_mean
from pleinair.tools.types import BadInput


class CheckedGraph(StateGraph[Any, Any, Any, Any]):
    """Builder of graphs that raise `BadInput` for an unknown key or an unusable prompt.

    `StateGraph.compile(builder)` builds the same graph for input that is validated already.
    """

    def compile(self, *args: Any, **kwargs: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Compile the graph; arguments as of `StateGraph.compile`."""
        compiled = super().compile(*args, **kwargs)
        compiled.__class__ = _CompiledCheckedGraph
        return compiled


class _CompiledCheckedGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """Compiled graph; `invoke` and `ainvoke` call these two."""

    def stream(self, input: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        _check_input(self, input)
        return super().stream(input, *args, **kwargs)

    def astream(self, input: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        _check_input(self, input)
        return super().astream(input, *args, **kwargs)


def _check_input(graph: CompiledStateGraph[Any, Any, Any, Any], values: Any) -> None:
    if not isinstance(values, dict):
        return  # None and `Command` continue a thread
    accepted = list(graph.builder.input_schema.model_fields)
    for key in values:
        if key not in accepted:
            hint = did_you_mean(str(key), accepted)
            raise BadInput(f"input: unknown key {key!r}; accepted: {', '.join(accepted)}.{hint}")
    if isinstance(prompt := values.get("prompt"), str):
        check_prompt(prompt)
