"""The user's library, for the terminal and the page: search, contents, duplicates, gaps, indexing."""
