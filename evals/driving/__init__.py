"""Conversations by which models that drive the react graph are compared."""
