"""What a picture will take of a device's memory, told from headers and configs before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from pleinair.app.settings import BackendChoice
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.models.inventory import Piece
    from pleinair.tools.diffusion.families import Family

ENGINE = "in_context"  # the one whose sequence grows with the references


def memory(choice: BackendChoice) -> tuple[float | None, float | None, str]:
    """Estimate GiB without references and with all slots full, and say on what it rests.

    Where nobody has measured a class the weights are the least that it takes, and the most is not known.
    """
    from pleinair.app.models.inventory import FAMILIES, generator_pieces

    if choice.backend not in FAMILIES:
        return None, None, f"not predicted for the engine {choice.backend!r}"
    try:
        piece = next(generator_pieces(choice))
        if choice.backend == ENGINE and piece.family()[1].activations:
            return _predicted(_defaults() | choice.arguments)
        return _weights_alone(piece)
    except BadInput as fault:
        return None, None, fault.message


def _predicted(given: dict[str, Any]) -> tuple[float | None, float | None, str]:
    """Predict from the settings of an in-context engine; raise `BadInput` for what it would refuse."""
    from pleinair.tools.diffusion.families import IN_CONTEXT, family_of
    from pleinair.tools.diffusion.memory import GIB, Tokens, in_gib, predict, read_needs

    family = family_of(IN_CONTEXT, given["pipeline"])
    folder = _source(given).here()
    form = _number_format(given, family)
    needs = read_needs(folder, family, 4 if form == "float32" else 2, given["variant"]) if folder else None
    if needs is None or not needs.token:
        return None, None, "the model is not here"
    text, slots = given["max_sequence_length"] or family.text_tokens, given["slots"]
    tokens = Tokens(unit=needs.unit, text=text, area=family.reference_area)
    one, size, rung = (given["reference_size"],) * 2, (given["width"], given["height"]), given["memory"]
    full = [one] * (family.slots if slots is None else slots)
    counts = [predict(tokens, size, references, one[0]) for references in ([], full)]
    low, high = (needs.bytes(rung, count) for count in counts)
    note = f"an estimate: {in_gib(needs.weights(rung))} of weights in {form}, rung {rung}, without decoding"
    if given["memory_limit"] and high > given["memory_limit"] * GIB:
        note += "; over generator.memory_limit: a lower rung, smaller references or a refusal"
    return low / GIB, high / GIB, note


def _weights_alone(piece: Piece) -> tuple[float | None, float | None, str]:
    """Count a model's weights on the rung that it begins on; adapters and control branches are left out."""
    from pleinair.tools.diffusion.memory import GIB, read_needs

    (name, family), folder = piece.family(), piece.source().here()
    form, rung = _number_format(piece.table, family), str(piece.table.get("memory") or "whole")
    needs = read_needs(folder, family, 4 if form == "float32" else 2, piece.variant) if folder else None
    if needs is None:
        return None, None, "the model is not here"
    note = f"the weights alone, in {form} on rung {rung}: nobody has measured the steps of {name}"
    return needs.weights(rung) / GIB, None, note


def _number_format(given: Mapping[str, Any], family: Family) -> str:
    """Name the format that a model is loaded in."""
    usual = "float32" if given.get("device", "cpu") == "cpu" else "bfloat16"
    return family.dtype or str(given.get("dtype") or usual)


def _defaults() -> dict[str, Any]:
    """Give what the engine takes where a profile says nothing."""
    from pleinair.tools.diffusion.in_context import InContext

    return {one.name: one.default for one in fields(InContext) if one.default is not MISSING}


def _source(given: dict[str, Any]) -> Any:
    """Name where the model's files are."""
    from pleinair.tools.model_files.hub import Source

    names = ("folder", "model", "revision", "allow_branch", "local_files_only")
    return Source(**{name: given[name] for name in names})
