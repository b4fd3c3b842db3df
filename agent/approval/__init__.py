"""Approval by a person: what the graph asks before it generates, and what the answer changes."""
