"""The catalogue world: real species drawn by a vector renderer, their scenes, names and library."""
