"""How a user meets it: settings, runs, and the doors."""
