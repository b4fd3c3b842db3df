"""Memory of the generator's device, predicted from headers and configs before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from pleinair.app.settings import BackendChoice
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.models.inventory import Piece
    from pleinair.tools.diffusion.families import Family

IN_CONTEXT = "in_context"  # the backend whose sequence grows with the references


def memory(choice: BackendChoice) -> tuple[float | None, float | None, str]:
    """Return GiB without references and with all slots full, and what that rests on.

    For a class whose activations were not measured the least is its weights, and the most is unknown.
    """
    from pleinair.app.models.inventory import FAMILIES, generator_pieces

    if choice.backend not in FAMILIES:
        return None, None, f"not predicted for the backend {choice.backend!r}"
    try:
        piece = next(generator_pieces(choice))
        if choice.backend == IN_CONTEXT and piece.family()[1].activations:
            return _predicted(_defaults() | choice.arguments)
        return _weights_alone(piece)
    except BadInput as error:
        return None, None, error.message


def _predicted(arguments: dict[str, Any]) -> tuple[float | None, float | None, str]:
    """Predict for the in-context backend; raise `BadInput` for arguments that it would refuse."""
    from pleinair.tools.diffusion import families
    from pleinair.tools.diffusion.memory import GIB, Tokens, in_gib, predict, read_needs

    family = families.family_of(families.IN_CONTEXT, arguments["pipeline"])
    folder = _source(arguments).here()
    form = _number_format(arguments, family)
    width = 4 if form == "float32" else 2  # bytes of a weight
    needs = read_needs(folder, family, width, arguments["variant"]) if folder else None
    if needs is None or not needs.token:
        return None, None, "the model is not here"
    text, slots = arguments["max_sequence_length"] or family.text_tokens, arguments["slots"]
    tokens = Tokens(unit=needs.unit, text=text, area=family.reference_area)
    reference, level = (arguments["reference_size"],) * 2, arguments["memory"]
    size = arguments["width"], arguments["height"]
    full = [reference] * (family.slots if slots is None else slots)
    counts = [predict(tokens, size, references, reference[0]) for references in ([], full)]
    low, high = (needs.bytes(level, count) for count in counts)
    weights = in_gib(needs.weights(level))
    note = f"an estimate: {weights} of weights in {form}, offload level {level}, without decoding"
    if arguments["memory_limit"] and high > arguments["memory_limit"] * GIB:
        note += "; over generator.memory_limit: a later offload level, smaller references or a refusal"
    return low / GIB, high / GIB, note


def _weights_alone(piece: Piece) -> tuple[float | None, float | None, str]:
    """Count a model's weights on its first offload level, without adapters and control branches."""
    from pleinair.tools.diffusion.memory import GIB, read_needs

    (name, family), folder = piece.family(), piece.source().here()
    form, level = _number_format(piece.table, family), str(piece.table.get("memory") or "whole")
    needs = read_needs(folder, family, 4 if form == "float32" else 2, piece.variant) if folder else None
    if needs is None:
        return None, None, "the model is not here"
    note = f"the weights alone, in {form} on level {level}: the activations of {name} were not measured"
    return needs.weights(level) / GIB, None, note


def _number_format(arguments: Mapping[str, Any], family: Family) -> str:
    """Return the number format that a model is loaded in."""
    usual = "float32" if arguments.get("device", "cpu") == "cpu" else "bfloat16"
    return family.dtype or str(arguments.get("dtype") or usual)


def _defaults() -> dict[str, Any]:
    """Return the arguments of the backend that a profile does not set."""
    from pleinair.tools.diffusion.in_context import InContext

    return {field.name: field.default for field in fields(InContext) if field.default is not MISSING}


def _source(arguments: dict[str, Any]) -> Any:
    from pleinair.tools.model_files.hub import Source

    names = ("folder", "model", "revision", "allow_branch", "local_files_only")
    return Source(**{name: arguments[name] for name in names})
