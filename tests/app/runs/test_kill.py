"""Runs survive `kill -9` at any moment: nothing is lost, wrong or repeated; more kills in `tests/outside`."""

import os

import pytest
from support.killed_runs import require_undisturbed

KILLS = int(os.environ.get("KILLS", "12"))


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_killed_runs_end_like_undisturbed_ones() -> None:
    require_undisturbed(KILLS)
