"""Settings files: their tables, and trust in them."""
