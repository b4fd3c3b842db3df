"""The skill file that tells other agents how to use the command line."""
