"""What the agent can do: decompose, retrieve, generate, critique, and the engines beneath."""
