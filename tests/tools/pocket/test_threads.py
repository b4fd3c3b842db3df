"""The pocket models compute on one thread, and make the same image on any number."""

import torch

from pleinair.app.engines import build_generator
from pleinair.app.settings import load
from pleinair.tools.pocket.threads import one_thread
from pleinair.tools.types import GenerateRequest


def test_only_a_pocket_model_is_limited(four_threads: None) -> None:
    with one_thread("pocket/encoder"):
        assert torch.get_num_threads() == 1
    with one_thread("/models/flux"):
        assert torch.get_num_threads() == 4
    assert torch.get_num_threads() == 4


def test_the_image_does_not_depend_on_the_threads_of_the_process(four_threads: None) -> None:
    request = GenerateRequest(
        prompt="a wren in the snow",
        references=(),
        seed=7,
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=3.0,
    )
    numbers, images = list[int](), list[bytes]()
    for threads in (4, 1):
        torch.set_num_threads(threads)
        image = build_generator(load("pocket")).generate(
            request, [], lambda *_: numbers.append(torch.get_num_threads())
        )
        images.append(image.tobytes())
    assert images[0] == images[1] and set(numbers) == {1}
