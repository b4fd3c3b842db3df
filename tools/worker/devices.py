"""Devices that a generator may use at the same time, a worker process on each.

A name is one of torch, such as `cuda:1`. A number behind `cpu:` only counts the processes that share the CPU.
"""

from __future__ import annotations

from functools import cache

from pleinair.tools.types import BadInput

ALL = "all"
_ACCEPTED = "accepted: 'all', or names such as 'cuda:0,cuda:1' or 'cpu:0,cpu:1'"


def check_devices(text: str) -> str:
    """Return a list of devices as it is; raise `BadInput` if it is malformed. No device is looked for."""
    if text and text != ALL:
        _names(text)
    return text


def list_devices(text: str) -> tuple[str, ...]:
    """Return the names in a list of devices, for "all" every CUDA device that torch sees, () for none.

    Raises `BadInput` for a malformed list, and for "all" on a machine without CUDA.
    """
    if text != ALL:
        return _names(text) if text else ()
    if not (count := _cuda_devices()):
        raise BadInput(
            f"generator.devices = {ALL!r}: no CUDA device on this machine; {_ACCEPTED}",
            "Set generator.devices = '' to use the one of generator.device.",
        )
    return tuple(f"cuda:{number}" for number in range(count))


def cpu_sharers(names: tuple[str, ...]) -> int:
    """Return how many of some devices are the CPU, at least 1."""
    return max(1, sum(name.startswith("cpu") for name in names))


def lock_name(device: str) -> str:
    """Return the name under which a device is locked; "auto" and "cuda" are taken for the first GPU."""
    return "cuda:0" if device in ("", "auto", "cuda") else device


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        kind, colon, number = name.partition(":")
        if kind not in ("cuda", "cpu") or not (colon and number.isdecimal()):
            raise BadInput(f"generator.devices = {text!r}: {name!r} is no device; {_ACCEPTED}")
    if len(set(names)) < len(names):
        raise BadInput(f"generator.devices = {text!r}: a device is listed twice; {_ACCEPTED}")
    return names


@cache
def _cuda_devices() -> int:
    import torch

    count: int = torch.cuda.device_count()
    return count
