"""`pleinair evaluate`: whether retrieval helps on a user's own library, with their own generator."""
