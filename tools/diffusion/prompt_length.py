"""How much of a prompt the text encoders of a pipeline read, by the tokenizers in its folder.

Not covered: the tokens of a chat template around the prompt, and sentences that are added for references.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.tools.diffusion.loading import library_warnings_off
from pleinair.tools.types import Value

if TYPE_CHECKING:
    from pleinair.tools.diffusion.settings import DiffusersSettings

SAFE = 60  # bytes of a prompt that no pipeline cuts: a token has at least one


class CutPrompt(Value):
    """End of a prompt that no text encoder of a pipeline reads."""

    tokens: int  # that are read
    text: str  # that is not


def cut_prompt(prompt: str, settings: DiffusersSettings) -> CutPrompt | None:
    """Return what is cut off a prompt; None if nothing is, or if the model is not on this machine."""
    folder = settings.source().local_folder() if len(prompt.encode()) > SAFE else None
    paths = sorted(folder.glob("tokenizer*/")) if folder else []
    if not paths:
        return None
    family = int(settings.call_options.get("max_sequence_length") or settings.family.text_tokens)
    with library_warnings_off():
        tokenizers = [_load(path) for path in paths]
        # a part that reads less, such as FLUX.1's CLIP, is beside one that reads all
        limit, tokenizer = max(
            ((min(tokenizer.model_max_length, family), tokenizer) for tokenizer in tokenizers),
            key=lambda pair: pair[0],
        )
        ids = tokenizer(prompt)["input_ids"]
        if len(ids) <= limit:
            return None
        read = tokenizer(prompt, truncation=True, max_length=limit, return_offsets_mapping=True)
    end = max(stop for _, stop in read["offset_mapping"])
    return CutPrompt(tokens=limit, text=prompt[end:].strip())


@lru_cache(maxsize=8)
def _load(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path), local_files_only=True)
