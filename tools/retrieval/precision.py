"""In which number format an encoder's weights stand, by what the machine is quick at."""

from __future__ import annotations

PRECISIONS = ("float32", "bfloat16", "float16")
SMALL = 10_000_000  # weights; under it nothing is gained, and rounding costs all the same


def find_precision(device: str, weights: int) -> str:
    """Choose bfloat16 for a model of some size where the device has instructions for it, else float32.

    On a CPU these are AVX512-BF16 or AMX: with them ViT-B/32 is some 4 times as quick as in float32, without
    them bfloat16 was measured 40 times slower. MPS and other devices keep float32.
    """
    if weights < SMALL:
        return "float32"
    kind = device.partition(":")[0]
    able = {"cpu": cpu_has_bfloat16, "cuda": gpu_has_bfloat16}.get(kind)
    return "bfloat16" if able and able() else "float32"


def cpu_has_bfloat16() -> bool:
    """Ask torch for AVX512-BF16 or AMX; False where torch cannot tell."""
    import torch

    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in asked)


def gpu_has_bfloat16() -> bool:
    """Tell whether the GPU computes in bfloat16 itself."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
