"""`pleinair verify`: measurements of this machine with its GPU, in a report that can be sent back."""
