"""The miniature world of invented names."""
