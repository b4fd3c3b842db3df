"""Our loop: decompose and draft, critique, plan, retrieve, select, generate again, keep the best."""

from langgraph.graph import END, START

from pleinair.agent import nodes
from pleinair.agent.approval import nodes as approval
from pleinair.agent.context import Context
from pleinair.agent.graph import CheckedGraph
from pleinair.agent.nodes import finishing
from pleinair.agent.state import ImageInput, Output

builder = CheckedGraph(
    approval.ApprovedState, context_schema=Context, input_schema=ImageInput, output_schema=Output
)
builder.add_node("begin", approval.begin)
builder.add_node("decompose", nodes.decompose_early)
builder.add_node("draft", nodes.quick_draft)
builder.add_node("critique", nodes.critique)
builder.add_node("plan", nodes.plan)
builder.add_node("retrieve", nodes.retrieve)
builder.add_node("select", approval.select)
builder.add_node("approve", approval.approve, destinations=("draft", "retrieve", "select", "finish"))
builder.add_node("generate", nodes.generate)
builder.add_node("finish", finishing(nodes.finish))

builder.add_edge(START, "begin")
builder.add_conditional_edges("begin", nodes.route_after_begin, ["decompose", "draft"])
builder.add_conditional_edges(
    "decompose", approval.route_after_decompose, ["approve", "draft", "critique", END]
)
builder.add_edge(["decompose", "draft"], "critique")
builder.add_conditional_edges("critique", nodes.route_after_critique)
builder.add_conditional_edges("plan", nodes.route_after_plan, ["retrieve", "select"])
builder.add_edge("retrieve", "select")
builder.add_conditional_edges("select", approval.route_after_select)
builder.add_edge("generate", "critique")
builder.add_edge("finish", END)

graph = builder.compile(name="pleinair")
