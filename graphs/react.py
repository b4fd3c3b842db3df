"""The model decides: it calls the loop's steps and the other graphs as tools, within the same budget."""

from langgraph.graph import END, START

from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.nodes import finishing
from pleinair.agent.react import nodes as react
from pleinair.agent.react.state import ReactInput, ReactState
from pleinair.agent.state import Output

builder = CheckedGraph(ReactState, context_schema=Context, input_schema=ReactInput, output_schema=Output)
builder.add_node("begin", react.begin)
builder.add_node("drive", react.drive)
builder.add_node("act", react.act)
builder.add_node("finish", finishing(react.finish))

builder.add_edge(START, "begin")
builder.add_edge("begin", "drive")
builder.add_conditional_edges("drive", react.route_after_drive, ["act", "drive", "finish"])
builder.add_edge("act", "drive")
builder.add_edge("finish", END)

graph = builder.compile(name="react")
