"""Selection of a model's files if the same weights exist in several number formats.

A variant is a second set of weights beside the first, such as "fp16". As in diffusers, each part of a
pipeline has it or not, and of a part that has it no other set is loaded. Not covered: ONNX, Flax, pickles.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from itertools import chain

Files = tuple[tuple[str, ...], tuple[str, ...]]  # patterns to fetch, and of those the ones to ignore

CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja")  # tokenizers included
PART_FILES = ("*.safetensors", *CONFIGS)
OTHER_SETS = ("*.fp16.*", "*.fp16-*", "*.bf16.*", "*.non_ema.*")  # the same weights once more
SHARD_INDEX = "*.safetensors.index.json"  # which file has which tensor, of the first set


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _variant_weights(variant: str) -> tuple[str, str]:
    """Return the patterns of a variant's weights, in one file or in several."""
    return f"*.{variant}.safetensors", f"*.{variant}-*.safetensors"


def select_weights(names: Iterable[str], variant: str = "") -> list[str]:
    """Return the safetensors of one part's files that are loaded: the variant's, else the first set."""
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    first_set = [name for name in weights if not _matches(name, OTHER_SETS)]
    if not variant:
        return first_set
    return [name for name in weights if _matches(name, _variant_weights(variant))] or first_set


def has_variant(names: Iterable[str], variant: str) -> bool:
    """Return whether one part's files include weights of a variant."""
    return any(_matches(name, _variant_weights(variant)) for name in names)


def select_shard_indexes(names: Iterable[str], variant: str = "") -> list[str]:
    """Return the shard indexes of the weights that `select_weights` returns."""
    names = list(names)
    if variant and has_variant(names, variant):
        patterns = (f"*.safetensors.index.{variant}.json", f"*.safetensors.{variant}.index.json")
        return [name for name in names if _matches(name, patterns)]
    return [name for name in names if fnmatch(name, SHARD_INDEX) and not _matches(name, OTHER_SETS)]


def pipeline_files(parts: Iterable[str], variant: str = "", names: Iterable[str] = ()) -> Files:
    """Return the patterns for a pipeline's parts; a variant's files are selected from `names`."""
    names = list(names)
    files = [_part_files(part, variant, files_in(names, part)) for part in parts]
    fetch, ignore = zip(*files, strict=True) if files else ((), ())
    return tuple(chain(*fetch)), tuple(chain(*ignore))


def _part_files(part: str, variant: str, names: Iterable[str]) -> Files:
    fetch: tuple[str, ...] = PART_FILES
    ignore: tuple[str, ...] = OTHER_SETS
    if variant and has_variant(names, variant):
        fetch, ignore = (*CONFIGS, *_variant_weights(variant)), (SHARD_INDEX,)
    return tuple(f"{part}/{pattern}" for pattern in fetch), tuple(f"{part}/{pattern}" for pattern in ignore)


def files_in(names: Iterable[str], folder: str) -> list[str]:
    """Return the names of the files directly in a model's folder; "" is the model's own."""
    pairs = (name.rpartition("/") for name in names)
    return [name for parent, _, name in pairs if parent == folder]
