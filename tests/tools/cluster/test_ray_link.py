"""Connection to a Ray cluster, as far as it needs no Ray; the rest is in `tests/outside`."""

import sys

import pytest

from pleinair.tools.cluster.ray_link import connect, disconnect, ray_address
from pleinair.tools.types import BadInput, PleinairError


@pytest.mark.parametrize(
    "text", ["", "local", "auto", "head:6379", "10.0.0.1:1", "[::1]:6379", "a.b-c.d:65535"]
)
def test_an_address_is_one_of_four_kinds(text: str) -> None:
    assert ray_address(text) == text


@pytest.mark.parametrize(
    "text", ["head", "head:0", "head:65536", ":6379", "ray://head:10001", "a b:1", "LOCAL"]
)
def test_another_address_is_refused_before_anything_is_imported(text: str) -> None:
    with pytest.raises(BadInput, match=r'cluster\.ray = .*must be "" \(no Ray\), "local"'):
        connect(text)


def test_without_an_address_there_is_no_connection() -> None:
    with pytest.raises(BadInput, match=r"cluster\.ray is not set"):
        connect("")
    disconnect()


def test_a_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PleinairError, match=r"Ray is not installed.*pip install 'pleinair\[cluster\]'"):
        connect("local")
