"""Nodes and state of ImageRAG."""
