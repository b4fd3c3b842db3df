"""MCP server over the run table: it holds no session, so every call can reach another process.

`mcp` negotiates the version: the specification of 2026-07-28, which has no handshake, and those before it.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from inspect import iscoroutinefunction
from typing import Any

from mcp.server.apps import EXTENSION_ID, client_supports_apps
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
)

from pleinair.app.mcp import arguments, resources, tools
from pleinair.app.mcp.access import Access, local_access
from pleinair.app.mcp.arguments import Arguments, read_arguments, schema_of
from pleinair.app.mcp.content import failure
from pleinair.tools.registry import did_you_mean
from pleinair.tools.types import BadInput, PleinairError

INSTRUCTIONS = (
    "Generates images and checks each against the prompt; what is missing is repaired with references from "
    "the user's library. start returns run ids at once; then call wait, again and again if need be, until "
    "the run ends or asks; show returns the image. Work goes on when this connection ends."
)
Context = ServerRequestContext[Any, Any]
GetAccess = Callable[[Context], Access]


@dataclass(frozen=True)
class _Kind:
    """Tool as clients see it, and its function."""

    call: Callable[..., Any]
    arguments: type[Arguments]
    title: str
    description: str
    reads: bool = False  # whether it changes nothing
    ends: bool = False  # whether it ends what goes on
    repeatable: bool = False  # whether a second call with the same arguments changes nothing more
    calls: bool = False  # whether it makes models work, which may be on other machines and cost money

    def tool(self, name: str) -> Tool:
        """Return what clients are told."""
        hints = ToolAnnotations(
            title=self.title,
            read_only_hint=self.reads,
            destructive_hint=self.ends,
            idempotent_hint=self.reads or self.repeatable,
            open_world_hint=self.calls,
        )
        schema = schema_of(self.arguments)
        return Tool(
            name=name, title=self.title, description=self.description, input_schema=schema, annotations=hints
        )


TOOLS = {
    "start": _Kind(
        tools.start,
        arguments.Start,
        "Start an image",
        "Start generating one or more images from a prompt. Returns the run ids at once; then call wait.",
        calls=True,
    ),
    "wait": _Kind(
        tools.wait,
        arguments.Wait,
        "Wait for an image",
        "Wait until a run ends or needs an answer, and return it with its image, like show. If it is still "
        "at work when the time is over, call wait again.",
        reads=True,
    ),
    "show": _Kind(
        tools.show,
        arguments.Show,
        "Show a run",
        "Show what a run does, its image, the verdict on each concept with its evidence, the references with "
        "their licenses, and the question if it waits for an answer.",
        reads=True,
    ),
    "answer": _Kind(
        tools.answer,
        arguments.Answer,
        "Answer a question",
        "Answer a run that waits for approval, as the user has decided: approve as proposed (with no "
        "argument but run), choose or veto references, rename concepts, change the prompt, or stop.",
        calls=True,
    ),
    "cancel": _Kind(
        tools.cancel,
        arguments.Cancel,
        "End a run",
        "End a run; its best image so far is kept.",
        ends=True,
        repeatable=True,
    ),
    "search_library": _Kind(
        tools.search_library,
        arguments.SearchLibrary,
        "Search the library",
        "Search the user's reference images, as a run does for a concept; says when nothing fits.",
        reads=True,
    ),
    "list_runs": _Kind(
        tools.list_runs,
        arguments.ListRuns,
        "List runs",
        "List runs of this machine, newest first, also those of other programs.",
        reads=True,
    ),
    "critique": _Kind(
        tools.critique,
        arguments.Critique,
        "Judge an image",
        "Judge whether an image shows each concept of a prompt, with evidence and advice. Generates nothing.",
        reads=True,
        calls=True,
    ),
}


def new_server(access: GetAccess) -> Server[Any]:
    """Return a server; `access` is called with the context of every request."""

    async def call_tool(context: Context, request: CallToolRequestParams) -> CallToolResult:
        try:
            return await _called(
                context, request, replace(access(context), apps=client_supports_apps(context))
            )
        except PleinairError as error:
            return failure(error)
        except OSError as error:  # a folder that cannot be written to, a full disk
            fault = f"{error.filename or 'pleinair'}: {error.strerror or error}"
            return failure(PleinairError(fault, "Check the disk and PLEINAIR_HOME, which is where runs are."))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            remedy = "Nothing that was stored is lost. Its standard error has the details."
            return failure(PleinairError("An unexpected error has happened in pleinair.", remedy))

    server: Server[Any] = Server(
        "pleinair",
        title="pleinair",
        version=version("pleinair"),
        instructions=INSTRUCTIONS,
        get_tool_input_schema=lambda name: None,  # no argument travels in a header
        on_list_tools=_list_tools,
        on_call_tool=call_tool,
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read_resource,
    )
    server.extensions[EXTENSION_ID] = {}
    return server


async def _called(context: Context, request: CallToolRequestParams, access: Access) -> CallToolResult:
    kind = TOOLS.get(request.name)
    if kind is None:
        hint = did_you_mean(request.name, list(TOOLS))
        raise BadInput(f"tool {request.name[:80]!r}: unknown; accepted: {', '.join(TOOLS)}.{hint}")
    values = read_arguments(kind.arguments, request.arguments)
    answer: CallToolResult
    if iscoroutinefunction(kind.call):
        answer = await kind.call(values, access, context.session.report_progress)
    else:
        answer = await asyncio.to_thread(kind.call, values, access)
    return answer


async def _list_tools(context: Context, request: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=[kind.tool(name) for name, kind in TOOLS.items()])


def serve_stdio() -> None:
    """Serve the program at the other end of standard input and output until it closes them.

    While it does, everything else that is printed goes to standard error.
    """
    access = local_access()

    async def serve() -> None:
        server = new_server(lambda context: access)
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    asyncio.run(serve())
