"""Nodes and state of Cross-modal RAG."""
