"""Tests in Chromium; a package, whose fixtures end with its last test."""
