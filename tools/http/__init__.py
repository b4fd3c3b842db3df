"""HTTP clients: transport, deadlines, retries, error codes, prices."""
