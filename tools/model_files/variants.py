"""Which of a model's files are loaded, where the same weights are there in several number formats.

A variant is a second set of weights beside the first, such as "fp16". As in diffusers each part of a pipeline
has it or has not, and of a part that has it nothing else is read. Not covered: ONNX, Flax, pickles.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from itertools import chain

Files = tuple[tuple[str, ...], tuple[str, ...]]  # patterns of what is wanted, and of what is left out

SIDE = ("*.json", "*.txt", "*.model", "*.jinja")  # configs, tokenizers
DATA = ("*.safetensors", *SIDE)  # what is fetched of a part
DOUBLES = ("*.fp16.*", "*.fp16-*", "*.bf16.*", "*.non_ema.*")  # the same weights once more
SHARDS = "*.safetensors.index.json"  # which file holds which tensor, of the first set


def _weights_of(variant: str) -> tuple[str, str]:
    """Give the patterns of a variant's weights, in one file or in several."""
    return f"*.{variant}.safetensors", f"*.{variant}-*.safetensors"


def chosen(names: Iterable[str], variant: str = "") -> list[str]:
    """Choose the safetensors that are loaded of one part's files: the variant's, else the first set."""
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    plain = [name for name in weights if not any(fnmatch(name, double) for double in DOUBLES)]
    if not variant:
        return plain
    return [name for name in weights if any(fnmatch(name, one) for one in _weights_of(variant))] or plain


def has(names: Iterable[str], variant: str) -> bool:
    """Tell whether one part's files have weights of a variant."""
    return any(fnmatch(name, pattern) for name in names for pattern in _weights_of(variant))


def shards(names: Iterable[str], variant: str = "") -> list[str]:
    """Choose the lists of shards that hold for what `chosen` chooses."""
    names = list(names)
    if variant and has(names, variant):
        known = (f"*.safetensors.index.{variant}.json", f"*.safetensors.{variant}.index.json")
        return [name for name in names if any(fnmatch(name, one) for one in known)]
    plain = [name for name in names if fnmatch(name, SHARDS)]
    return [name for name in plain if not any(fnmatch(name, double) for double in DOUBLES)]


def pipeline_files(parts: Iterable[str], variant: str = "", names: Iterable[str] = ()) -> Files:
    """Give the patterns for a pipeline's parts; a variant's files are chosen among `names`."""
    names = list(names)
    files = [_part_files(part, variant, inside(names, part)) for part in parts]
    wanted, left = zip(*files, strict=True) if files else ((), ())
    return tuple(chain(*wanted)), tuple(chain(*left))


def _part_files(part: str, variant: str = "", names: Iterable[str] = ()) -> Files:
    """Give the patterns for one part, in whose folder are the files `names`."""
    place = f"{part}/"
    if variant and has(names, variant):
        wanted = (*SIDE, *_weights_of(variant))
        return tuple(place + one for one in wanted), (place + SHARDS,)
    return tuple(place + one for one in DATA), tuple(place + one for one in DOUBLES)


def inside(names: Iterable[str], part: str) -> list[str]:
    """Give the names of the files that are right inside a folder of a model; an empty one is its own."""
    pairs = (name.rpartition("/") for name in names)
    return [name for folder, _, name in pairs if folder == part]
