"""Estimates before a run: calls, tokens, money, memory and seconds."""
