"""ImageRAG in its draft-first mode: decide, list what is missing, caption, look up, draw again once."""

from langgraph.graph import END, START, StateGraph

from pleinair.agent import imagerag, nodes, routes
from pleinair.agent.context import Context
from pleinair.agent.state import Input, Output, State

builder = StateGraph(State, context_schema=Context, input_schema=Input, output_schema=Output)
builder.add_node("draft", nodes.draft)
builder.add_node("decide", imagerag.decide)
builder.add_node("find_missing", imagerag.find_missing)
builder.add_node("retrieve", imagerag.retrieve_first)
builder.add_node("select", nodes.select)
builder.add_node("generate", nodes.generate)
builder.add_node("finish", nodes.finish_unchecked)

builder.add_edge(START, "draft")
builder.add_edge("draft", "decide")
builder.add_conditional_edges("decide", imagerag.route_after_decide, ["find_missing", "finish"])
builder.add_conditional_edges("find_missing", routes.route_after_plan, ["retrieve", "select"])
builder.add_edge("retrieve", "select")
builder.add_edge("select", "generate")
builder.add_edge("generate", "finish")
builder.add_edge("finish", END)

graph = builder.compile(name="imagerag")
