"""Requests made from the server's own description, right and wrong ones: no server error."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.servers import Server, own_folders, serving

SMALL = "16x16"  # pixels; any other size that a request has would take minutes
GENERATIONS = "/v1/images/generations"
PROMPT = "a hoopoe in the snow"
EXAMPLES = 12  # requests of each kind


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a home with the pocket models."""
    with own_folders(tmp_path_factory.mktemp("place")), serving(queue=8) as server:
        yield server


def _make_quick(body: Any) -> None:
    """Change a body, in place, so that what it requests is generated in a moment."""
    if isinstance(body, dict):
        body |= {"size": SMALL} if "size" in body and body["size"] != "auto" else {}
        body |= {name: 16 for name in ("width", "height") if isinstance(body.get(name), int)}
        body |= {"n": 1} if body.get("n") in range(1, 11) else {}
        body |= {"num_images": 1} if isinstance(body.get("num_images"), int) else {}


def _make_usable(body: Any) -> None:
    """Change a body, in place, so that the pocket models can read its prompt and have what it selects."""
    if isinstance(body, dict) and "prompt" in body:
        body |= {"prompt": PROMPT} | {name: None for name in ("model", "pleinair") if name in body}


CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_server_error(server: Server, mode: GenerationMode) -> None:
    description = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    counts = Counter[str]()
    for result in description.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: Any) -> None:
            _make_quick(case.body)
            if mode == GenerationMode.POSITIVE and case.path == GENERATIONS:
                _make_usable(case.body)
            response = case.call_and_validate(checks=CHECKS, timeout=120)
            counts[f"{case.method} {case.path} {response.status_code}"] += 1

        with suppress(Unsatisfiable):  # no request without a field can be wrong
            answers()
    requested = {name.rpartition(" ")[0] for name in counts}
    assert requested >= {"POST /runs", "POST /v1/images/edits", f"POST {GENERATIONS}"}
    assert counts[f"POST {GENERATIONS} 200"] or mode == GenerationMode.NEGATIVE
