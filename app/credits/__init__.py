"""Whose images a run used, and what its image says about itself."""
