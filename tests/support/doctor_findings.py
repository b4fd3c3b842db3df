"""A checkup of the quick profile, for tests of what a doctor finds."""

from typing import Any

from pleinair.app.doctor.doctor import Finding, examine


def look(**overrides: Any) -> dict[str, Finding]:
    """Examine the quick profile with some settings changed, and give the findings by name."""
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return {one.name: one for one in examine(None, given)}


def faults(found: dict[str, Finding]) -> list[str]:
    """Name what is not well."""
    return [one.name for one in found.values() if not one.ok]
