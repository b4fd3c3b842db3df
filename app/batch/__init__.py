"""Many prompts from a file."""
