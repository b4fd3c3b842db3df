"""What makes a denoiser quicker, compiled blocks and attention backends; what would do nothing is refused.

Private names of diffusers are those of 0.42. Not covered: kernels from the hub, which are code, and whether a
backend takes the device's number format, which shows at the first step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pleinair.tools.diffusion.loading import read_classes
from pleinair.tools.locks import alone
from pleinair.tools.model_files.hub import first_line
from pleinair.tools.types import BadInput

DENOISERS = ("transformer", "unet")


@alone
def check_backend(name: str) -> None:
    """Refuse an attention backend that diffusers does not know, or that this machine lacks; "" is none."""
    if not name:
        return
    if "hub" in name:
        raise BadInput(f"{_key(name)}: would load code")
    from diffusers.models.attention_dispatch import (
        AttentionBackendName,
        _check_attention_backend_requirements,
    )

    known = sorted(one.value for one in AttentionBackendName if "hub" not in one.value)
    if name not in known:
        raise BadInput(f"{_key(name)}: unknown; wanted one of: {', '.join(known)}")
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except RuntimeError as error:
        raise BadInput(f"{_key(name)}: {first_line(error)}") from error


@alone
def check_compiles(folder: Path) -> None:
    """Refuse to compile a pipeline whose denoiser names no repeated blocks, by its index."""
    import diffusers

    named = {part: kind for part, kind in read_classes(folder).items() if part in DENOISERS}
    for part, kind in named.items():
        if not getattr(getattr(diffusers, kind, None), "_repeated_blocks", None):
            raise BadInput(f"generator.compile = true: the {part}'s class {kind} has no blocks to compile")


def use_backend(denoiser: Any, name: str) -> None:
    """Let a denoiser's attention run on a backend; raise `BadInput` where none of its layers takes one."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    everywhere = _AttentionBackendRegistry._active_backend
    denoiser.set_attention_backend(name)
    _AttentionBackendRegistry.set_active_backend(everywhere)  # other models of this process keep theirs
    wanted = AttentionBackendName(name)
    processors = (getattr(module, "processor", None) for module in denoiser.modules())
    if not any(getattr(one, "_attention_backend", None) == wanted for one in processors):
        raise BadInput(f"{_key(name)}: {type(denoiser).__name__} has no attention that takes a backend")


def _key(name: str) -> str:
    return f"generator.attention_backend = {name!r}"
