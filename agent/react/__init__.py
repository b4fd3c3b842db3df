"""Nodes, state, tools and messages of the react graph, in which the MLLM decides by tool calls."""
