"""Training of the pocket models on the catalogue world."""
