"""Estimate of a generator's device memory, from headers and configs before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleinair.app.settings import BackendChoice
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.diffusion.engine import DiffusersSettings

Estimate = tuple[float | None, float | None, str]  # GiB without references and with all slots full; a note


def memory(choice: BackendChoice) -> Estimate:
    """Estimate GiB without references and with all slots full, with a note on the basis.

    If nobody has measured a class, the weights are the lower bound and the upper one is unknown.
    """
    from pleinair.app.models.inventory import BACKENDS, generator_settings

    if choice.backend not in BACKENDS:
        return None, None, f"not predicted for the backend {choice.backend!r}"
    try:
        return _estimate(generator_settings(choice))
    except BadInput as error:
        return None, None, error.message


def _estimate(settings: DiffusersSettings) -> Estimate:
    from pleinair.tools.diffusion.in_context import InContextSettings
    from pleinair.tools.diffusion.memory import GIB, format_gib, read_estimate
    from pleinair.tools.diffusion.references import sequence_length

    family, level, folder = settings.family, settings.memory, settings.source().local_folder()
    dtype = family.dtype or settings.dtype or ("float32" if settings.device == "cpu" else "bfloat16")
    itemsize = 4 if dtype == "float32" else 2
    estimate = read_estimate(folder, family, itemsize, settings.variant) if folder else None
    if estimate is None:
        return None, None, "the model is not downloaded"
    weights = estimate.weights(level)
    if not (isinstance(settings, InContextSettings) and estimate.token_bytes):
        note = f"the weights alone, in {dtype} at offload level {level}"
        return weights / GIB, None, f"{note}: the steps of {settings.pipeline} were not measured"
    rule, longest = settings.token_rule(estimate.unit), settings.reference_size
    references = [(longest, longest)] * (family.slots if settings.slots is None else settings.slots)
    counts = [
        sequence_length(rule, (settings.width, settings.height), sizes, longest) for sizes in ([], references)
    ]
    low, high = (estimate.total(level, count) for count in counts)
    note = (
        f"an estimate: {format_gib(weights)} of weights in {dtype}, offload level {level}, without decoding"
    )
    if settings.memory_limit and high > settings.memory_limit * GIB:
        note += "; over generator.memory_limit: a lower level, smaller references or a refusal"
    return low / GIB, high / GIB, note
