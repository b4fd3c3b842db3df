"""A run from request to outcome: its row, its lease, its steps, its record, its results."""
