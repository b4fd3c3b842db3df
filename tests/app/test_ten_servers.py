"""Runs of the miniature world whose critic is behind ten simulated servers: accepted, with the same image.

The pocket model answers each server; the pocket generator, encoder and library are the real ones.
"""

from pathlib import Path

import pytest
from PIL import Image
from support.quirky_servers import SERVERS, serving

from pleinair.app.api import draw
from pleinair.app.engines import build_backend
from pleinair.app.runs.results import Result
from pleinair.app.settings import load

PROMPT = "a hoopoe in the snow"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return draw(PROMPT, seed=1, out=str(tmp_path_factory.mktemp("local")))


def pixels(result: Result) -> bytes:
    assert result.picture
    with Image.open(result.picture) as image:
        return image.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_a_run_through_a_server_ends_with_the_image_of_a_run_without_it(
    server: str, expected: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with serving(build_backend("mllm", load("pocket").mllm), SERVERS[server]) as service:
        address = {"mllm.model": service.quirks.model, "mllm.base_url": service.url}
        overrides = {"mllm.backend": "openai", **address}
        result = draw(PROMPT, seed=1, out=str(tmp_path), overrides=overrides)
    assert result.outcome.ending == expected.outcome.ending == "accepted"
    assert pixels(result) == pixels(expected)
