"""Species of the miniature world by name."""

from pleinair.tools.pocket.invented.world import SPECIES, Species


def species_named(name: str) -> Species:
    """Return the species of a name."""
    return next(species for species in SPECIES if species.name == name)
