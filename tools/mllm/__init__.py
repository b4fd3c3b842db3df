"""Structured output of multimodal language models."""
