"""Threads of the pocket models: one, because more of them wait for each other longer than they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PREFIX = "pocket/"  # of the folders of these models in the settings


@contextmanager
def one_thread(folder: str) -> Iterator[None]:
    """Let torch compute on one thread in the block if `folder` is a pocket model's; the numbers are the same.

    The number of threads belongs to the process: a block that ends in another thread may restore it earlier.
    """
    import torch

    before = torch.get_num_threads()
    if not folder.startswith(PREFIX) or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
