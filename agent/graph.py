"""Graphs as LangGraph programs: input and context from outside are checked once, before the first node.

LangGraph itself ignores unknown keys of an input, builds the state anew for every node, lets the thread of a
cancelled step run on, and has no time limit for a step that is a plain function.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Self, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables.config import RunnableConfig, ensure_config, merge_configs
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import get_runtime
from pydantic import BaseModel, Field

from pleinair.agent.context import Context, from_parts, is_parts
from pleinair.agent.inputs import read_input
from pleinair.agent.state import MAX_PROMPT, Output
from pleinair.tools.callbacks import Stop
from pleinair.tools.deadline import STEP_WAIT, finish_in_time
from pleinair.tools.registry import resolve
from pleinair.tools.tracing import without_images
from pleinair.tools.types import BadInput, Side

_CHECKPOINTER = "__pregel_checkpointer"  # LangGraph's key for that of a graph around this one
Graph = CompiledStateGraph[Any, Any, Any, Any]
_DESCRIPTION = "Generate an image of a prompt; returns where it is stored and whether it shows everything."


class CheckedGraph(StateGraph[Any, Any, Any, Any]):
    """Builder of graphs that read input as `read_input` and a context as `CheckedGraph.context_of` does.

    `StateGraph.compile(builder)` builds the same graph for input that is validated already.
    """

    default_context: Any = None  # of runs that are given none
    image_url: str = "file"  # form of the output's field with a context of settings

    def add_node(self, node: Any, action: Any = None, **options: Any) -> Self:
        """Add a node; one that is a plain function is left behind if it blocks after the run's deadline."""
        if inspect.isfunction(action) and not inspect.iscoroutinefunction(action):
            action = _in_time(action)
        return super().add_node(node, action, **options)

    def compile(self, *args: Any, context: Any = None, **kwargs: Any) -> CheckedCompiledGraph:
        """Compile the graph; `context` is that of runs without one, other arguments as of `StateGraph`."""
        builder = copy(self)
        builder.default_context = self.default_context if context is None else context
        compiled = StateGraph.compile(builder, *args, **kwargs)
        attributes = {name: value for name, value in vars(compiled).items() if name != "__orig_class__"}
        checked = CheckedCompiledGraph(**attributes)
        vars(checked).update(attributes)
        return checked

    def context_of(self, context: Any, name: str) -> Context:
        """Return the context of a run of this graph, which is registered as `name`.

        It may be a `Context`, a dict of its fields, or what `pleinair.app.served.graphs.context_of` takes,
        which None is too; or any object or dict that has one of these as `pleinair`.

        Raises:
            BadInput: it is anything else, or a part of it is not usable.
        """
        value = self.default_context if context is None else _own_part(context, context)
        if is_parts(value):
            value = from_parts(value)
        if not isinstance(value, Context):
            value = cast(Context, resolve("context", "settings")(value, name, self.image_url))
        if value.approve and "approvals" not in getattr(self.state_schema, "model_fields", ()):
            raise BadInput(f"approve = {value.approve!r}: graph {name!r} asks nobody")
        return value


def _in_time(action: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(action)  # LangGraph reads its signature
    def node(*args: Any, **options: Any) -> Any:
        return finish_in_time(partial(action, *args, **options), STEP_WAIT)

    return node


class CheckedCompiledGraph(Graph):
    """Compiled graph; `invoke` and `ainvoke` call `stream` and `astream`."""

    def stream(
        self, input: Any, config: RunnableConfig | None = None, *, context: Any = None, **options: Any
    ) -> Iterator[Any]:
        """Check the input and the context, and stream a run; options as of LangGraph."""
        values, config, run_context = self._prepare(input, config, context)
        parts = super().stream(values, config, context=run_context, **options)
        return _stopping(parts, run_context.stop)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, *, context: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        """Do the same in an event loop; a cancelled run stops at its next diffusion step or MLLM call."""
        # in a thread: it may read files
        values, config, run_context = await asyncio.to_thread(self._prepare, input, config, context)
        parts: Any = super().astream(values, config, context=run_context, **options)
        try:
            async for part in parts:
                yield part
        finally:  # also when the task that waits is cancelled
            run_context.stop.set()
            await parts.aclose()

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
        context: Any = None,
    ) -> BaseTool:
        """Return a tool that runs the graph; its result is one line, its artifact the graph's output.

        Args:
            args_schema: keys of the graph's input that the MLLM may set; `ToolInput` by default.
            name: of the tool; the graph's by default.
            description: for the MLLM.
            arg_types: refused: a schema has descriptions, too.
            context: of the runs; by default that of the graph around the tool or the graph's own.
        """
        if arg_types:
            raise TypeError("arg_types: not supported; use args_schema")

        def run(**values: Any) -> tuple[str, dict[str, Any]]:
            return _result(self.invoke(_set(values), context=context))

        async def arun(**values: Any) -> tuple[str, dict[str, Any]]:
            return _result(await self.ainvoke(_set(values), context=context))

        return StructuredTool.from_function(
            run,
            arun,
            name=name or self.get_name(),
            description=description or _DESCRIPTION,
            args_schema=args_schema or ToolInput,
            response_format="content_and_artifact",
        )

    def _prepare(
        self, values: Any, config: RunnableConfig | None, context: Any
    ) -> tuple[Any, RunnableConfig, Context]:
        builder = cast(CheckedGraph, self.builder)
        is_node = bool((config or {}).get("configurable", {}).get("checkpoint_ns"))
        run_context = builder.context_of(_inherited() if context is None else context, self.name)
        if run_context.approve:
            _require_checkpointer(self.checkpointer, config)
        values = read_input(builder.input_schema, values, run_context, config, is_node=is_node)
        run_context = replace(run_context, stop=Stop(run_context.stop))
        config = config if run_context.trace_images else without_images(config)
        return values, _with_stop(config, run_context.stop), run_context


def _require_checkpointer(checkpointer: object, config: RunnableConfig | None) -> None:
    """Raise `BadInput` if an interrupted run could not be resumed."""
    inherited = ensure_config(config).get("configurable", {}).get(_CHECKPOINTER)
    if not isinstance(checkpointer, BaseCheckpointSaver) and not inherited:
        remedy = "Compile the graph with one, such as `builder.compile(InMemorySaver())`."
        raise BadInput("approve: asks by an interrupt, which needs a checkpointer", remedy)


def _stopping(parts: Iterator[Any], stop: Stop) -> Iterator[Any]:
    try:
        for part in parts:  # noqa: UP028  # `yield from` would close them, and wait for steps, first
            yield part
    finally:
        stop.set()
        cast(Generator[Any, None, None], parts).close()


def _own_part(context: Any, default: Any) -> Any:
    if isinstance(context, dict):
        return context.get("pleinair", default)
    return getattr(context, "pleinair", default)


def _inherited() -> Any:
    """Return our part of the context of a graph around this one, None if there is none."""
    with suppress(RuntimeError):  # not within a run
        runtime = get_runtime()
        context = runtime and runtime.context
        return context if isinstance(context, Context) else _own_part(context, None)
    return None


class _StopHandler(BaseCallbackHandler):
    """Callback that stops a run before a call of a chat model."""

    raise_error = True
    run_inline = True

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self._stop.check()


def _with_stop(config: RunnableConfig | None, stop: Stop) -> RunnableConfig:
    callbacks: RunnableConfig = {"callbacks": ensure_config(config).get("callbacks")}
    added = merge_configs(callbacks, {"callbacks": [_StopHandler(stop)]})
    return {**(config or {}), "callbacks": added["callbacks"]}


class ToolInput(BaseModel):
    """Arguments of the tool; the defaults are the settings'."""

    prompt: str = Field(pattern=r"\S", max_length=MAX_PROMPT, description="what the image is to show")
    negative_prompt: str | None = Field(default=None, description="what it must not show")
    width: Side | None = Field(default=None, description="pixels")
    height: Side | None = Field(default=None, description="pixels")
    seed: int | None = Field(default=None, ge=0, description="repeats an image; random by default")


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _result(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    output = Output.model_validate(values, extra="ignore")
    outcome, url = output.outcome, output.image_url
    line = f"{outcome.ending}: {outcome.reason}" if outcome else "no outcome"
    if url is None:
        return f"{line}; no image", values
    where = "the image is in the artifact" if url.startswith("data:") else url
    return f"{line}; {where}", values
