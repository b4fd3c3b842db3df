"""Images that the first runs of a request draw for the later ones, in the same forward pass.

Each image is still a run of its own, with its record and its budget: the run whose turn it is takes the
image that is ready, and draws it itself where there is none. The images are in memory only, so after a crash
they are drawn again. Not covered: images with references, which differ from run to run, runs of different
processes, and runs with a limit of seconds, which would be charged with the images of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN
from pleinair.tools.types import BatchGenerator, Capabilities, GenerateRequest, Generator, OnStep

if TYPE_CHECKING:
    from PIL.Image import Image

_Item = TypeVar("_Item")


class Ahead:
    """Images of runs that are performed one after the other, in this order."""

    def __init__(self, runs: Sequence[Run]) -> None:
        open_runs = [run for run in runs if run.status in OPEN and run.group == runs[0].group]
        self._seeds = [run.seed for run in open_runs]
        self._begun: set[int] = set()  # seeds of runs whose first image has been asked for
        self._images: dict[str, Image] = {}  # by request

    def sharing(self, generator: Generator) -> Generator:
        """Return a generator that draws the images of later runs together with that of the current one."""
        is_able = isinstance(generator, BatchGenerator) and generator.capabilities.batch > 1
        return _Sharing(generator, self) if is_able and len(self._seeds) > 1 else generator

    def take(self, request: GenerateRequest) -> Image | None:
        """Return the image of a request that is ready, once; None if there is none."""
        image = self._images.pop(_key(request), None)
        if image:
            self._begun.add(request.seed)
        return image

    def later_seeds(self, request: GenerateRequest, most: int) -> list[int]:
        """Return up to `most` seeds of later runs whose first image a request is, but for the seed."""
        is_first = request.seed in self._seeds and request.seed not in self._begun
        self._begun.add(request.seed)
        if request.references or request.inpaint or not is_first:
            return []
        return self._seeds[self._seeds.index(request.seed) + 1 :][:most]

    def add(self, request: GenerateRequest, seeds: Sequence[int], images: Sequence[Image]) -> None:
        """Keep the images of a request with other seeds."""
        for seed, image in zip(seeds, images, strict=False):  # fewer where there was no room
            self._images[_key(request.model_copy(update={"seed": seed}))] = image


class _Sharing:
    """Generator that takes images which are ready, and makes those of later runs together with its own."""

    def __init__(self, generator: Any, ahead: Ahead) -> None:
        self._generator, self._ahead = generator, ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the generator."""
        capabilities: Capabilities = self._generator.capabilities
        return capabilities

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Return the image of a request; errors as of the generator."""
        if image := self._ahead.take(request):
            for done in (0, request.num_inference_steps):
                on_step(done, request.num_inference_steps)
            return image
        seeds = self._ahead.later_seeds(request, self.capabilities.batch - 1)
        if not seeds:
            result: Image = self._generator.generate(request, images, on_step)
            return result
        first, *others = self._generator.generate_batch(request, seeds, on_step)
        self._ahead.add(request, seeds, others)
        own: Image = first
        return own


def _key(request: GenerateRequest) -> str:
    return request.model_dump_json()


def split_runs(runs: Sequence[_Item], devices: int, batch: int = 1) -> list[Sequence[_Item]]:
    """Split the runs of a request, or their numbers, into shares that one device performs in turn.

    For one device all are one share; for several ones a share has as many as one forward pass makes, so that
    a device which is done takes the next.
    """
    size = min(batch, ceil(len(runs) / devices)) if devices > 1 else len(runs)
    return [runs[start : start + size] for start in range(0, len(runs), size)]
