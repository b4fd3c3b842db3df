"""Multimodal language models as LangChain chat models."""
