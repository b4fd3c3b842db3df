"""Drawings of the species: their parts as polygons, by kind, and the painter and colours for all."""
