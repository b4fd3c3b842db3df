"""Scores of generated images: closeness to prompts and to real images, as the three papers measure them."""
