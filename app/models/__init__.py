"""Model files: what is installed, downloads, pinned commits."""
