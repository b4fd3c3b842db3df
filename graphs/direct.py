"""The baseline: one image of the prompt, without references."""

from langgraph.graph import END, START

from pleinair.agent import nodes
from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.nodes import finishing
from pleinair.agent.state import Input, Output, State

builder = CheckedGraph(State, context_schema=Context, input_schema=Input, output_schema=Output)
builder.add_node("begin", nodes.begin)
builder.add_node("draft", nodes.draft)
builder.add_node("finish", finishing(nodes.finish_unchecked))

builder.add_edge(START, "begin")
builder.add_edge("begin", "draft")
builder.add_edge("draft", "finish")
builder.add_edge("finish", END)

graph = builder.compile(name="direct")
