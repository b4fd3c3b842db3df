"""Cross-modal RAG: sub-queries, captions, looks, the Pareto set, one image; with every ablation switch."""

from langgraph.graph import END, START

from pleinair.agent import crossmodal, nodes
from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.nodes import finishing

builder = CheckedGraph(
    crossmodal.CrossmodalState,
    context_schema=Context,
    input_schema=crossmodal.CrossmodalInput,
    output_schema=crossmodal.CrossmodalOutput,
)
builder.add_node("begin", crossmodal.begin)
builder.add_node("decompose", crossmodal.decompose)
builder.add_node("caption", crossmodal.caption)
builder.add_node("search", crossmodal.search)
builder.add_node("retrieve", crossmodal.retrieve)
builder.add_node("select", crossmodal.select)
builder.add_node("generate", nodes.generate)
builder.add_node("draft", nodes.draft)
builder.add_node("finish", finishing(crossmodal.finish))

builder.add_edge(START, "begin")
builder.add_conditional_edges("begin", crossmodal.route_start, ["decompose", "draft"])
builder.add_conditional_edges("decompose", crossmodal.route_after_decompose, ["caption", "search", "finish"])
builder.add_edge("caption", "search")
builder.add_conditional_edges("search", crossmodal.route_after_search, ["retrieve", "select"])
builder.add_edge("retrieve", "select")
builder.add_edge("select", "generate")
builder.add_edge("generate", "finish")
builder.add_edge("draft", "finish")
builder.add_edge("finish", END)

graph = builder.compile(name="crossmodal")
