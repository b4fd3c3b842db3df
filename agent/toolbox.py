"""The driving model's tools: what it is offered, which calls are sound, and how one is carried out."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.config import get_config
from langgraph.runtime import Runtime

from pleinair.agent import calls, verbs
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.react_state import ReactState
from pleinair.tools import registry
from pleinair.tools.realrag import require_training, training_of
from pleinair.tools.types import BadInput, Value

DRIVER = "react"  # the graph that offers the others
TRAINED = "realrag"  # the graph that may want a trained retriever
Do = Callable[[Any, verbs.Here], verbs.Done]
TOOLS: dict[str, tuple[Do, type[Value]]] = {
    "decompose": (verbs.decompose, calls.Decompose),
    "generate": (verbs.generate, calls.Generate),
    "critique": (verbs.critique, calls.Critique),
    "retrieve": (verbs.retrieve, calls.Retrieve),
    "veto": (verbs.veto, calls.Veto),
    "pin": (verbs.pin, calls.Fix),
    "finish": (verbs.finish, calls.Finish),
}


@cache
def tools() -> tuple[BaseTool, ...]:
    """Give the tools: the verbs, and every graph that is installed but the driver itself."""
    graphs = [name for name in registry.names("graph") if name != DRIVER and name not in TOOLS]
    own = [tool(name, do, schema, schema.__doc__ or name) for name, (do, schema) in TOOLS.items()]
    return (*own, *map(graph_tool, graphs))


def offered(context: Context) -> tuple[BaseTool, ...]:
    """Give the tools of a run: all but a graph that cannot draw with its retriever."""
    try:
        require_training(context.realrag, training_of(context.retriever))
    except BadInput:
        return tuple(one for one in tools() if one.name != TRAINED)
    return tools()


def tool(name: str, do: Do, schema: type[Value], does: str) -> BaseTool:
    """Make one tool; what it gives besides its text is the change of the state.

    The arguments are checked here and not by LangChain, which drops what it does not know.
    """

    def run(runtime: verbs.Here, **given: Any) -> verbs.Done:
        return do(calls.parsed(schema, given), runtime)

    return StructuredTool.from_function(
        run,
        name=name,
        description=inspect.cleandoc(does),
        args_schema=schema.model_json_schema(),
        response_format="content_and_artifact",
    )


def graph_tool(name: str) -> BaseTool:
    """Make a tool of a graph; it is imported when it is called."""
    does = f"Let the graph `{name}` draw the wish in its own way, within what is left of the budget."
    return tool(name, lambda _, runtime: verbs.run_graph(name, runtime), calls.Whole, does)


def objection(call: dict[str, Any], offers: Sequence[BaseTool] = ()) -> str:
    """Say what is wrong with a call before anything is done, "" if nothing; `offers` is all by default."""
    known = [one.name for one in offers or tools()]
    if call["name"] not in known:
        return f"There is no tool of that name; there are: {', '.join(known)}."
    try:
        calls.parsed(TOOLS[call["name"]][1] if call["name"] in TOOLS else calls.Whole, call["args"])
    except BadInput as error:
        return str(error)
    return ""


def carry_out(call: dict[str, Any], state: ReactState, runtime: Runtime[Context]) -> tuple[str, Update]:
    """Do what a sound call asks for; give the text for the model and the change of the state.

    Raises what the tool raises: `BadInput` and `ModelFault` for the model to act on.
    """
    known, config = tools(), get_config()
    here = verbs.Here(
        state=state,
        context=runtime.context,
        config=config,
        stream_writer=runtime.stream_writer,
        tool_call_id=call["id"],
        store=None,
        tools=list(known),
    )
    chosen = next(one for one in known if one.name == call["name"])
    given = call | {"type": "tool_call", "args": {**call["args"], "runtime": here}}
    answer = chosen.invoke(given, config)
    return str(answer.content), answer.artifact
