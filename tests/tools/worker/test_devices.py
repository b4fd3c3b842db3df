"""Lists of devices: their names, their locks, and those that share the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pleinair.tools.diffusion.offload import find_device
from pleinair.tools.diffusion.text_only import TextOnlySettings
from pleinair.tools.types import BadInput
from pleinair.tools.worker.devices import check_devices, cpu_sharers, list_devices, lock_name


def test_lists_are_read() -> None:
    assert list_devices("") == ()
    assert list_devices("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    assert cpu_sharers(list_devices("cpu:0,cpu:1,cuda:0")) == 2
    assert cpu_sharers(()) == 1
    assert check_devices("all") == "all"  # no device is looked for


@pytest.mark.parametrize(
    "text", ["cuda", "0,1", "cpu:", "mps:0", "cuda:0,,cuda:1", "cuda:x", "cuda:-1", "All"]
)
def test_a_malformed_list_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(BadInput, match="generator.devices = .*; accepted: 'all', or names such as"):
        check_devices(text)


def test_one_device_has_one_lock_whatever_its_name() -> None:
    assert {lock_name(name) for name in ("", "auto", "cuda", "cuda:0")} == {"cuda:0"}
    assert lock_name("cuda:1") != lock_name("cpu:1") != lock_name("cpu")


def test_a_numbered_cpu_is_the_cpu_and_an_absent_gpu_is_refused() -> None:
    assert find_device("cpu:1") == "cpu"
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(BadInput, match=f"generator.device = '{absent}': not on this machine"):
        find_device(absent)


def test_a_process_uses_its_own_of_several_devices() -> None:
    model: dict[str, Any] = {
        "model": "owner/base",
        "revision": "a" * 40,
        "pipeline": "StableDiffusionXLPipeline",
    }
    settings = {"devices": "cpu:0,cpu:1", **model}
    assert TextOnlySettings(**settings).own_device == "cpu:0"
    assert TextOnlySettings(**settings, device="cpu:1").own_device == "cpu:1"
    assert TextOnlySettings(**settings, device="auto").own_device == "cpu:0"
    assert TextOnlySettings(**model, device="auto").own_device == "auto"
