"""RealRAG's reflective retriever and its training."""
