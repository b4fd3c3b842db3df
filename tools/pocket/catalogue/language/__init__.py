"""The language of the catalogue world: prompts read and written by rules, changes in a chat, questions."""
