"""Changes of a request in a chat."""
