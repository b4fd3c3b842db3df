"""Training of the catalogue world's models."""
