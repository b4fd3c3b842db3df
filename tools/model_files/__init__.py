"""Model files: the hub, variants, integrity, local folders."""
