"""A generator in a process of its own."""
