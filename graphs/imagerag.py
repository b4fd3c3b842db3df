"""ImageRAG: draft, decide, list what is missing, caption it, retrieve, generate; with every switch."""

from langgraph.graph import END, START

from pleinair.agent import imagerag, nodes
from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.nodes import finishing
from pleinair.agent.state import ImageInput, Output

builder = CheckedGraph(
    imagerag.ImageRAGState, context_schema=Context, input_schema=ImageInput, output_schema=Output
)
builder.add_node("begin", nodes.begin)
builder.add_node("draft", nodes.draft)
builder.add_node("decide", imagerag.decide)
builder.add_node("find_missing", imagerag.find_missing)
builder.add_node("caption", imagerag.caption)
builder.add_node("rephrase", imagerag.rephrase)
builder.add_node("retrieve", imagerag.retrieve)
builder.add_node("rerank", imagerag.rerank)
builder.add_node("select", imagerag.select)
builder.add_node("generate", nodes.generate)
builder.add_node("finish", finishing(imagerag.finish))

NEXT = ["find_missing", "rephrase", "finish"]
builder.add_edge(START, "begin")
builder.add_conditional_edges("begin", imagerag.route_start, ["draft", *NEXT])
builder.add_edge("draft", "decide")
builder.add_conditional_edges("decide", imagerag.route_after_decide, NEXT)
builder.add_edge("find_missing", "caption")
builder.add_conditional_edges("caption", imagerag.route_after_caption, ["retrieve", "select", "finish"])
builder.add_conditional_edges("retrieve", imagerag.route_after_retrieve, ["rerank", "select"])
builder.add_edge("rerank", "select")
builder.add_conditional_edges("select", imagerag.route_to_generate, ["generate", "finish"])
builder.add_conditional_edges("rephrase", imagerag.route_to_generate, ["generate", "finish"])
builder.add_conditional_edges("generate", imagerag.route_after_generate, ["decide", "finish"])
builder.add_edge("finish", END)

graph = builder.compile(name="imagerag")
