"""Fixtures of the tests of tools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def four_threads() -> Iterator[None]:
    """Let torch use four threads in a test."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
