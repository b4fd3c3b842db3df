"""The verb decompose: a prompt becomes the concepts that must be visible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import Decomposition
from pleinair.tools.types import Concept, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

INSTRUCTION = (
    "Break the prompt into the concepts that must be visible in the picture. Keep each concept's own "
    "modifiers, such as colour and material, and leave out the setting, the medium and the layout. Give "
    "each concept a short caption of a picture that shows it alone, fit for a look-up in a library."
)


def decompose(prompt: str, *, model: BaseChatModel, calls: int = 1) -> tuple[list[Concept], Usage]:
    """List the concepts of `prompt` in its own order, each name once; `calls` over 1 allow a repair.

    Raises:
        Refused: the model declined the prompt; the text is the model's.
        ModelFault: the answer is malformed or names a concept twice.
    """
    answer, usage = ask(model, Decomposition, INSTRUCTION, {"prompt": prompt}, calls=calls, check=_repetition)
    return list(answer.concepts), usage


def _repetition(answer: Decomposition) -> str:
    names = [concept.name for concept in answer.concepts]
    distinct = {name.casefold() for name in names}
    return f"The model named a concept twice: {names}." if len(distinct) < len(names) else ""
