"""A generator or an encoder in a process of its own."""
