"""The miniature world, its models and their training."""
