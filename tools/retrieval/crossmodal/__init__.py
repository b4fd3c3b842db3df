"""Cross-modal RAG's retrieval: sparse filter, dense adaptor, Pareto set."""
