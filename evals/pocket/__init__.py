"""Figures of the pocket models, and the independent classifier that judges images."""
