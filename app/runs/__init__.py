"""A run from its request to its outcome: store, lease, events, checkpoints, results."""
