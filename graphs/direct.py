"""The baseline: one image of the prompt and the user's own images, without references of the library.

With a base image only its transparent part is generated.
"""

from langgraph.graph import END, START

from pleinair.agent import edits, nodes
from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.nodes import finishing
from pleinair.agent.state import EditInput, EditState, Output

builder = CheckedGraph(EditState, context_schema=Context, input_schema=EditInput, output_schema=Output)
builder.add_node("begin", nodes.begin)
builder.add_node("draft", edits.draft)
builder.add_node("finish", finishing(nodes.finish_unchecked))

builder.add_edge(START, "begin")
builder.add_edge("begin", "draft")
builder.add_edge("draft", "finish")
builder.add_edge("finish", END)

graph = builder.compile(name="direct")
