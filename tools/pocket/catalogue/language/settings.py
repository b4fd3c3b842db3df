"""Place, light and weather of a request when words name several."""

from __future__ import annotations

from pleinair.tools.pocket.catalogue.language.lexicon import DETAILS
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood

_WEAK = ("day", "clear")  # light and weather that give way to others: "one day at sunset"


def settle(name: str, value: str, fields: dict[str, str]) -> str:
    """Return the value of a field that may have another one already; raise NotUnderstood if they clash."""
    before = fields.get(name, "")
    if before in ("", value, *_WEAK) or value in _WEAK:
        return before if before and value in _WEAK else value
    if name == "background":
        return _settle_places(before, value, fields)
    raise NotUnderstood("settings", f"{before} and {value}", (before, value))


def _settle_places(before: str, value: str, fields: dict[str, str]) -> str:
    """Return the place of two: sky is above each, snow falls over each, some are part of another."""
    places = {before, value}
    if "sky" in places:
        return (places - {"sky"}).pop()
    if "snow" in places:
        fields.setdefault("weather", "snowfall")
        return (places - {"snow"}).pop()
    for place, details in DETAILS.items():
        if place in places and places - {place} <= set(details):
            return place
    raise NotUnderstood("settings", f"{before} and {value}", (before, value))
