"""RealRAG: the raw prompt finds its references with a trained retriever, and they are always used.

The draft is only for our variant, which needs no training.
"""

from langgraph.graph import END, START

from pleinair.agent import nodes, realrag
from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.nodes import finishing
from pleinair.agent.state import ImageInput, Output, State

builder = CheckedGraph(State, context_schema=Context, input_schema=ImageInput, output_schema=Output)
builder.add_node("begin", nodes.begin)
builder.add_node("draft", realrag.draft)
builder.add_node("retrieve", realrag.retrieve)
builder.add_node("select", realrag.select)
builder.add_node("generate", nodes.generate)
builder.add_node("finish", finishing(realrag.finish))

builder.add_edge(START, "begin")
builder.add_conditional_edges("begin", realrag.route_start, ["draft", "retrieve"])
builder.add_conditional_edges("draft", realrag.route_after_draft, ["retrieve", "finish"])
builder.add_conditional_edges("retrieve", realrag.route_after_retrieve, ["select", "finish"])
builder.add_edge("select", "generate")
builder.add_edge("generate", "finish")
builder.add_edge("finish", END)

graph = builder.compile(name="realrag")
