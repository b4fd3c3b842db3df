"""Repairs of an image: the plan, inpainting, and swaps of references that leak."""
