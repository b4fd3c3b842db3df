"""The artifact store and safe file writes."""
