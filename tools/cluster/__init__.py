"""Index builds and models on a Ray cluster; its modules import Ray inside their functions only."""
