"""The picture library, its encoder and its index."""
