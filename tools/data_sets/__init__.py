"""Published data sets in their own layouts: class names, captions and splits from their own lists."""
