"""Measurements of RealRAG's trained retriever."""
