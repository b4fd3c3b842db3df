"""What the lines of a chat mean, for any interface."""
