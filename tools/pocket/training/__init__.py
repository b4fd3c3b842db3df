"""Train the pocket models on the miniature world."""
