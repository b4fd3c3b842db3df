"""Findings of `pleinair doctor` for the quick profile."""

from typing import Any

from pleinair.app.doctor.doctor import Finding, examine


def look(**overrides: Any) -> dict[str, Finding]:
    """Examine the quick profile with some settings changed; return the findings by name."""
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    return {finding.name: finding for finding in examine(None, settings)}


def faults(findings: dict[str, Finding]) -> list[str]:
    """List the names of the failed checks."""
    return [finding.name for finding in findings.values() if not finding.ok]
