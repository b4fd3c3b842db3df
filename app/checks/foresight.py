"""What a picture will take of a device's memory, told from headers and configs before anything is loaded."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from pleinair.app.settings import EngineChoice
from pleinair.tools.types import BadInput

ENGINE = "in_context"  # the one whose sequence grows with the references


def memory(choice: EngineChoice) -> tuple[float | None, float | None, str]:
    """Estimate GiB without references and with all slots full, and say on what it rests."""
    if choice.engine != ENGINE:
        return None, None, f"not predicted for the engine {choice.engine!r}"
    try:
        return predicted(defaults() | choice.arguments)
    except BadInput as fault:
        return None, None, str(fault).partition(". ")[0]


def predicted(given: dict[str, Any]) -> tuple[float | None, float | None, str]:
    """Predict from the settings of an in-context engine; raise `BadInput` for what it would refuse."""
    from pleinair.tools.diffusion.families import IN_CONTEXT, family_of
    from pleinair.tools.diffusion.memory import GIB, in_gib, read_needs
    from pleinair.tools.diffusion.reference_plan import Tokens, predict

    family = family_of(IN_CONTEXT, given["pipeline"])
    if not family.activations:
        return None, None, f"nobody has measured {given['pipeline']}"
    folder = source(given).here()
    form = family.dtype or given["dtype"] or ("float32" if given["device"] == "cpu" else "bfloat16")
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


def defaults() -> dict[str, Any]:
    """Give what the engine takes where a profile says nothing."""
    from pleinair.tools.diffusion.in_context import InContext

    return {one.name: one.default for one in fields(InContext) if one.default is not MISSING}


def source(given: dict[str, Any]) -> Any:
    """Name where the model's files are."""
    from pleinair.tools.hub import Source

    names = ("folder", "model", "revision", "allow_branch", "local_files_only")
    return Source(**{name: given[name] for name in names})
