"""Critique of any image by the configured MLLM, outside of a run."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.agent.state import check_prompt
from pleinair.app.engines import build_backend, check
from pleinair.app.models.ready import require_ready
from pleinair.app.settings import load
from pleinair.tools.critique import critique
from pleinair.tools.decompose import decompose
from pleinair.tools.types import BadInput, Concept, Row, Usage, Value

CALLS = 2  # of each step: the second one repairs an answer, or looks closer
MAX_CONCEPTS = 32


class Judgement(Value):
    """Which concepts of a prompt an image shows."""

    prompt: str
    ledger: tuple[Row, ...]
    usage: Usage

    @property
    def shows_all(self) -> bool:
        """Whether every concept is present."""
        return all(row.status == "present" for row in self.ledger)


def judge(png: bytes, prompt: str, *, concepts: Sequence[str] = (), profile: str | None = None) -> Judgement:
    """Judge an image against a prompt as a run judges its own.

    Args:
        png: RGB.
        prompt: what the image must show.
        concepts: that are judged; the MLLM reads them from the prompt by default.
        profile: whose MLLM judges; the configured one by default.

    Raises:
        BadInput: a value is unusable, or the profile's models are not ready.
        Refused: the MLLM declined.
        ModelFault: the MLLM gave no usable answer.
    """
    check_prompt(prompt)
    names = [" ".join(name.split()) for name in concepts]
    if len({name.casefold() for name in names}) < len(names) or not all(names) or len(names) > MAX_CONCEPTS:
        raise BadInput(f"concepts {names}: must be up to {MAX_CONCEPTS} different names")
    settings = load(profile)
    check(settings)
    require_ready(settings)
    model = build_backend("mllm", settings.mllm)
    listed, spent = [Concept(name=name, caption=name) for name in names], Usage()
    if not listed:
        listed, spent = decompose(prompt, model=model, calls=CALLS)
    if not listed:
        raise BadInput(f"prompt {prompt[:80]!r}: names nothing that can be judged", "Pass `concepts`.")
    ledger, usage = critique(png, prompt, listed, model=model, calls=CALLS)
    return Judgement(prompt=prompt, ledger=ledger.rows, usage=Usage.total([spent, usage]))
