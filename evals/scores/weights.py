"""Weights of scoring networks in files that the user names; nothing in them is run as code."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pleinair.tools.model_files.hub import NotDownloaded
from pleinair.tools.types import BadInput


def read_weights(path: str, scorer: str, remedy: str) -> dict[str, Any]:
    """Read a state dictionary, tensors by name, from a `.safetensors` file or one that torch has saved.

    Raises:
        NotDownloaded: there is no such file.
        BadInput: it holds anything but tensors; with the remedy, too.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise NotDownloaded(f"{scorer}: {path!r} is not a file.", remedy)
    try:
        if path.endswith(".safetensors"):
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or ["it is damaged"])[0]
        raise BadInput(f"{scorer}: {path!r} holds no weights that can be read: {reason}", remedy) from error
    if not isinstance(state, Mapping) or not all(torch.is_tensor(value) for value in state.values()):
        raise BadInput(f"{scorer}: {path!r} is not a state dictionary.", remedy)
    return dict(state)


def digest_of(state: Mapping[str, Any], start: bytes = b"") -> str:
    """Return twelve hexadecimal digits of tensors and of what else a network's features depend on."""
    digest = hashlib.sha256(start)
    for key, tensor in state.items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy())
    return digest.hexdigest()[:12]


def device_of(name: str) -> str:
    """Return a torch device; "auto" is CUDA if there is one, else the CPU."""
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
