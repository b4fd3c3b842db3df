"""The storyboard of a run as HTML and PNG."""
