"""A small step computes on one thread, and processes that share the CPU share its cores."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from support import tiny_pipelines as tiny
from support.generator_requests import make_request

from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.threads import SMALL, limited_threads, step_threads


def test_the_threads_of_a_step_follow_its_size_and_those_who_share_the_cpu() -> None:
    cores = len(os.sched_getaffinity(0))
    assert step_threads(SMALL / 2) == step_threads(SMALL / 2, sharers=2) == 1
    assert step_threads(SMALL) == cores
    assert step_threads(SMALL, sharers=cores) == step_threads(SMALL, sharers=cores + 1) == 1


def test_threads_are_limited_in_the_block_only(four_threads: None) -> None:
    with limited_threads(2):
        assert torch.get_num_threads() == 2
        with limited_threads(8):
            assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


def test_a_small_generator_computes_on_one_thread(four_threads: None, tmp_path: Path) -> None:
    folder, threads = str(tiny.save(tiny.klein, tmp_path)), set[int]()
    engine = InContext(folder, height=32, width=32, max_sequence_length=24, text_encoder_out_layers=(0, 1))
    engine.generate(make_request(), (), lambda *_: threads.add(torch.get_num_threads()))
    assert threads == {1}
    assert torch.get_num_threads() == 4
