"""The pocket models compute on one thread, and make the same image on any number."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from pleinair.tools.pocket.threads import one_thread

DRAW = """
import hashlib, sys, torch
from pleinair.app.engines import build_generator
from pleinair.app.settings import load
from pleinair.tools.types import GenerateRequest
numbers = []
request = GenerateRequest(prompt="a wren in the snow", seed=7, height=64, width=64, num_inference_steps=2,
                          guidance_scale=3.0)
image = build_generator(load("pocket")).generate(
    request, [], lambda done, total: numbers.append(torch.get_num_threads()))
print(hashlib.sha256(image.tobytes()).hexdigest(), set(numbers), torch.get_num_threads())
"""


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_only_a_pocket_model_is_limited(four_threads: None) -> None:
    with one_thread("pocket/encoder"):
        assert torch.get_num_threads() == 1
    with one_thread("/models/flux"):
        assert torch.get_num_threads() == 4
    assert torch.get_num_threads() == 4


def test_the_image_is_the_same_on_any_number_of_threads() -> None:
    words = [
        subprocess.run(
            [sys.executable, "-c", DRAW],
            env=os.environ | {"OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for threads in ("1", "2")
    ]
    assert words[0][0] == words[1][0]
    assert [word[1:] for word in words] == [["{1}", "1"], ["{1}", "2"]]
