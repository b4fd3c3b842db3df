"""What a picture will take of a device's memory, predicted before a weight is loaded.

Weights are counted from the headers of their files. What a step holds beside them is an estimate: it grows
with the tokens and with the transformer's width, by a number that was measured for the family
(`Family.activations`). Of a family without one only the weights are known, the least that it takes. Not
covered: the autoencoder's decoding, which tiles make small, attention that holds its whole matrix, control
branches and adapters, quantised weights, and other programs on the device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.tools.diffusion.families import Family
from pleinair.tools.diffusion.loading import read_index
from pleinair.tools.diffusion.offload import Ladder, OutOfMemory
from pleinair.tools.model_files.folders import head
from pleinair.tools.model_files.variants import chosen
from pleinair.tools.types import BadInput

GIB = 2**30
BYTES = {"I64": 8, "I32": 4, "I16": 2}  # of other formats one
FLOATS = ("F64", "F32", "F16", "BF16")  # what loading turns into the wanted format


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Say what a model takes.

    Args:
        parts: bytes of the weights by part, in the format that they are loaded in.
        token: bytes that a step holds for each token, an estimate; 0 where nobody has measured the family.
        unit: side of a token in pixels.
    """

    parts: Mapping[str, int]
    token: float
    unit: int

    def weights(self, rung: str) -> int:
        """Count the bytes of weights that are on the device at once."""
        if rung == "sequential_offload":
            return 0  # a layer at a time: little beside the rest
        return max(self.parts.values()) if rung == "model_offload" else sum(self.parts.values())

    def tokens(self, rung: str, room: int) -> int:
        """Give the longest sequence that fits beside the weights in `room` bytes; below 0 if they do not."""
        return math.floor((room - self.weights(rung)) / self.token)

    def bytes(self, rung: str, tokens: int) -> int:
        """Predict what a sequence takes, weights included."""
        return self.weights(rung) + round(self.token * tokens)

    def text(self, rung: str, tokens: int) -> str:
        """Put a prediction into words."""
        if not self.token:
            return f"at least {in_gib(self.weights(rung))} GiB on rung {rung}, for the weights alone"
        weights, steps = (in_gib(size) for size in (self.weights(rung), round(self.token * tokens)))
        whole = in_gib(self.bytes(rung, tokens))
        return f"about {whole} GiB on rung {rung}: {weights} of weights, {steps} for {tokens:,} tokens"


def read_needs(folder: Path, family: Family, size: int, variant: str = "") -> Needs | None:
    """Read what the model in a folder takes; None where it has no weights.

    Args:
        folder: with the pipeline's index, its configs and its weights.
        family: what is known of its class.
        size: bytes of a number in the format that it is loaded in.
        variant: name of a second set of weights.
    """
    form = _config_of(folder / "transformer")
    width = form.get("num_attention_heads", 0) * form.get("attention_head_dim", 0)
    parts = {part: _weight(folder / part, size, variant) for part in read_index(folder)[1]}
    if not any(parts.values()):
        return None
    known = width and parts.get("transformer")
    unit = unit_of(folder, family)
    token = family.activations * width * size if known and unit else 0.0
    return Needs(parts=parts, token=token, unit=unit or 1)


def unit_of(folder: Path | None, family: Family) -> int | None:
    """Read the pixels that sides are multiples of; None where a folder's autoencoder does not say."""
    vae = _config_of(folder / "vae") if folder else {}
    halvings = len(vae.get("temperal_downsample", vae.get("block_out_channels", ())[1:]))
    return 2**halvings * family.patch if vae else None


def _config_of(part: Path) -> dict[str, Any]:
    """Read the settings of a part; none where it has no file of them."""
    path = part / "config.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _weight(part: Path, size: int, variant: str) -> int:
    """Count the bytes that a part's weights take once they are loaded in a format of `size` bytes."""
    names = [path.name for path in part.glob("*.safetensors")]
    return sum(_loaded(tensor, size) for name in chosen(names, variant) for tensor in _tensors(part / name))


def _tensors(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of a safetensors file's header; none of a damaged one, which loading refuses."""
    try:
        entries = json.loads(head(path))
    except ValueError:
        return
    yield from (entry for name, entry in entries.items() if name != "__metadata__")


def _loaded(tensor: Mapping[str, Any], size: int) -> int:
    """Count the bytes of a tensor once it is loaded: numbers with a point change their format."""
    kind, shape = str(tensor["dtype"]), list[int](tensor["shape"])
    return math.prod(shape) * (size if kind in FLOATS else BYTES.get(kind, 1))


def room_on(device: str, limit: float | None) -> int | None:
    """Give the bytes that a model may take: the limit in GiB, and on CUDA what is free; None is unknown.

    What torch holds already is counted as free, since the model itself may be there.
    """
    rooms = [] if limit is None else [round(limit * GIB)]
    if device.startswith("cuda"):
        import torch

        rooms.append(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    return min(rooms, default=None)


def in_gib(size: int) -> str:
    """Write bytes in GiB, with two figures where there are few."""
    return f"{size / GIB:.1f}" if size >= GIB else f"{size / GIB:.2g}"


def lower_to_weights(ladder: Ladder, needs: Needs, room: int) -> None:
    """Go to the first rung whose weights alone fit, without trying one that cannot do.

    Raises `OutOfMemory` where they fit nowhere. That a picture takes more than the weights shows later.
    """
    rung = next((one for one in ladder.left if needs.weights(one) <= room), None)
    if rung is None:
        raise OutOfMemory(
            f"The model would not fit in memory: it takes {needs.text(ladder.rung, 0)}, with room for "
            f"{in_gib(room)} GiB.",
            "Take a smaller model, a device with more memory, or free some.",
        )
    if rung != ladder.rung:
        ladder.lower(rung, needs.text(ladder.rung, 0))


def choose(
    needs: Needs, offload_levels: Sequence[str], room: int, plan: Callable[[int | None], int]
) -> tuple[str, int]:
    """Choose the first rung where a picture fits as it is wanted, else the one with the most room.

    A lower rung draws the same picture more slowly, so it comes before smaller references.

    Args:
        needs: what the model takes.
        offload_levels: the present one and those under it.
        room: bytes that it may take.
        plan: gives the tokens within a limit, and raises `BadInput` where no plan is within it.

    Returns:
        The rung and the tokens that fit there.

    Raises:
        OutOfMemory: even the smallest references fit nowhere.
        BadInput: they are too many tokens without a limit from here.
    """
    fits, wanted = {rung: needs.tokens(rung, room) for rung in offload_levels}, plan(None)
    rung = next((one for one in fits if fits[one] >= wanted), max(fits, key=fits.__getitem__))
    try:
        plan(fits[rung])
    except BadInput as fault:
        raise OutOfMemory(
            f"The picture would not fit in memory: {needs.text(rung, wanted)} (an estimate), with room for "
            f"{in_gib(room)} GiB.",
            "Ask for a smaller picture, for fewer or smaller references, or free memory.",
        ) from fault
    return rung, fits[rung]


Size = tuple[int, int]  # width and height in pixels
SHARES = (1.0, 0.75, 0.5, 0.375, 0.25)  # of the declared size, tried in turn
LEAST = 4  # tokens a side; a reference under that shows nothing


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Declare how a class turns pictures and text into tokens.

    Args:
        unit: side of a token in pixels, the autoencoder's scale times the patch.
        text: tokens of the prompt, padded as the class does.
        area: pixels that the class scales each reference to; 0 where it takes it as it is.
        most: pixels over which it scales a reference down.
    """

    unit: int
    text: int
    area: int = 0
    most: int = 1024 * 1024

    def of(self, size: Size) -> int:
        """Count the tokens of a picture that is taken as it is."""
        width, height = size
        return (width // self.unit) * (height // self.unit)

    def of_reference(self, size: Size) -> int:
        """Count the tokens of a reference, after the class's own scaling."""
        area = self.area or min(size[0] * size[1], self.most)
        share = math.sqrt(area / (size[0] * size[1]))
        return self.of((round(size[0] * share), round(size[1] * share)))


@dataclass(frozen=True, kw_only=True)
class ReferencePlan:
    """Say how large the references are given, and how long the sequence will be.

    Args:
        size: longest side in pixels that a reference is scaled down to.
        tokens: of text, picture and references together.
    """

    size: int
    tokens: int


def fit(size: Size, longest: int) -> Size:
    """Give a picture's size after it is scaled down, never up, to a longest side in pixels."""
    share = min(1.0, longest / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def predict(tokens: Tokens, picture: Size, references: Sequence[Size], longest: int) -> int:
    """Predict the length of the sequence with the references scaled down to `longest`."""
    given = sum(tokens.of_reference(fit(size, longest)) for size in references)
    return tokens.text + tokens.of(picture) + given


def make_plan(
    tokens: Tokens, picture: Size, references: Sequence[Size], *, longest: int, limit: int | None = None
) -> ReferencePlan:
    """Give the largest size of the references whose sequence is within the limit.

    Args:
        tokens: what the class declares.
        picture: the size of the new picture.
        references: the sizes of the references as they are sent, crops as crops.
        longest: the declared longest side in pixels of a reference.
        limit: tokens in all; None is no limit.

    Raises:
        BadInput: even the smallest references, or none at all, are over the limit.
    """
    sizes = [longest, *(round(longest * share) for share in SHARES[1:] if references)]
    usable = [size for size in sizes if size == longest or size >= LEAST * tokens.unit]
    plans = [ReferencePlan(size=size, tokens=predict(tokens, picture, references, size)) for size in usable]
    fitting = [plan for plan in plans if limit is None or plan.tokens <= limit]
    if not fitting:
        raise BadInput(_too_long(plans[-1], picture, len(references), limit or 0))
    return fitting[0]


def _too_long(plan: ReferencePlan, picture: Size, references: int, limit: int) -> str:
    """Say by how much a plan is over the limit, and what to do."""
    width, height = picture
    given = f" with {references} references of {plan.size} pixels" if references else ""
    fewer = "fewer references or " if references else ""
    return (
        f"A picture of {width} × {height}{given} is a sequence of {plan.tokens} tokens, over the limit of "
        f"{limit} (generator.max_sequence): ask for {fewer}a smaller picture."
    )
