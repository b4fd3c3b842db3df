"""Results of work in several threads: their order, the first error, and an end before the last one."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from pleinair.app.runs.at_once import results_of

WAIT = 300  # seconds until a test fails in which something waits for ever


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_results_are_in_the_order_of_the_items(threads: int) -> None:
    last = threading.Event()

    def work(item: int) -> int:
        if threads > 1 and item == 0:
            assert last.wait(WAIT)  # the others are done before the first
        if item == 4:
            last.set()
        return item * item

    assert list(results_of(range(5), work, threads)) == [0, 1, 4, 9, 16]


def test_so_many_items_are_at_work_at_once() -> None:
    barrier, names = threading.Barrier(3), set[str]()

    def work(item: int) -> None:
        barrier.wait(WAIT)
        names.add(threading.current_thread().name)

    list(results_of(range(6), work, 3))
    assert len(names) == 3


def test_an_error_begins_nothing_further_and_comes_after_the_results() -> None:
    both, begun, results, failing = threading.Barrier(2), list[int](), list[int](), list[threading.Thread]()

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            failing.append(threading.current_thread())
        both.wait(WAIT)
        if item == 0:
            raise ValueError("of the first")
        failing[0].join(WAIT)
        return item

    with pytest.raises(ValueError, match="of the first"):
        for result in results_of(range(9), work, 2):
            results.append(result)
    assert sorted(begun) == [0, 1] and results == [1]


def test_who_leaves_early_stops_the_work_and_begins_nothing_further() -> None:
    stop, begun, ended = threading.Event(), list[int](), list[int]()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            assert stop.wait(WAIT)
            ended.append(item)
        return item

    with closing(results_of(range(9), work, 2, stop)) as results:
        assert next(results) == 0
    assert stop.is_set()
    assert len(begun) <= 3 and sorted(ended) == sorted(begun)[1:]
