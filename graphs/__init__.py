"""In which order: LangGraph wiring only."""
