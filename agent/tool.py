"""A graph as a tool of another agent: an MLLM sets the prompt and options, and reads one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, Field

from pleinair.agent.state import Output
from pleinair.tools.types import Side

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

_DESCRIPTION = "Generate an image of a prompt; returns where it is stored and whether it shows everything."


class ToolInput(BaseModel):
    """Arguments of the tool; the defaults are the settings'."""

    prompt: str = Field(description="what the image is to show")
    negative_prompt: str | None = Field(default=None, description="what it must not show")
    width: Side | None = Field(default=None, description="pixels")
    height: Side | None = Field(default=None, description="pixels")
    seed: int | None = Field(default=None, ge=0, description="repeats an image; random by default")


def graph_tool(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    args_schema: type[BaseModel] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    arg_types: dict[str, type] | None = None,
    context: Any = None,
) -> BaseTool:
    """Return a tool that runs a graph; its result is one line, its artifact the graph's output.

    Args:
        graph: a compiled graph.
        args_schema: keys of the graph's input that the MLLM may set; `ToolInput` by default.
        name: of the tool; the graph's by default.
        description: for the MLLM.
        arg_types: refused: a schema has descriptions, too.
        context: of the runs; by default that of the graph around the tool or the graph's own.
    """
    if arg_types:
        raise TypeError("arg_types: not supported; use args_schema")

    def run(**values: Any) -> tuple[str, dict[str, Any]]:
        return _result(graph.invoke(_set(values), context=context))

    async def arun(**values: Any) -> tuple[str, dict[str, Any]]:
        return _result(await graph.ainvoke(_set(values), context=context))

    return StructuredTool.from_function(
        run,
        arun,
        name=name or graph.get_name(),
        description=description or _DESCRIPTION,
        args_schema=args_schema or ToolInput,
        response_format="content_and_artifact",
    )


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
