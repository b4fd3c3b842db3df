"""Readers of what a library's folder holds about its images: tables, sidecars, the files and their names."""
