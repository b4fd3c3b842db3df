"""Fixture of a place with a hostile library."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.library_place import library_place


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Create the place once for the tests of a module."""
    with library_place(tmp_path_factory.mktemp("shelf")) as folder:
        yield folder
