"""Generators, one file a way of conditioning."""
