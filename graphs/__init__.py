"""Graphs: LangGraph wiring only."""
