"""The command line, and what it shows while a run goes on."""
