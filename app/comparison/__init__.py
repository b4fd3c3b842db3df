"""Pairs of images for people to compare: sources, votes and results."""
