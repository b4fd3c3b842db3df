"""The graph in which the MLLM decides by tool calls: nodes, state, tools and messages."""
