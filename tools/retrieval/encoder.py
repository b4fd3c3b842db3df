"""Embed texts and images with any open_clip model, the pocket one included."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pleinair.tools.arguments import check_values
from pleinair.tools.images.gpu_jpeg import check_gpu_jpeg
from pleinair.tools.locks import serialized
from pleinair.tools.model_files.folders import locate
from pleinair.tools.model_files.open_clip import LOCAL, WEIGHTS, clip_source, fetch_clip, may_load_pickle
from pleinair.tools.pocket.threads import one_thread
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Features, Vectors

REMEMBERED = 4096  # texts whose embedding is cached
_SMALL = 10_000_000  # weights of a model whose texts do not gain from bfloat16
_PART = 8  # images that one of several threads of a CPU embeds at a time, at least
_PART_PIXELS = 32 * 224**2  # at most: larger matrices leave the processor's cache

_log = logging.getLogger(__name__)


class Preparation:
    """Fast equivalent of open_clip's transform, or the transform itself if it has an unknown step.

    Images are resized one by one, by `resize`, and a batch of them is scaled by `normalize`, on its device.
    """

    def __init__(self, transform: Any) -> None:
        from open_clip.transform import MaybeConvertMode, MaybeToTensor
        from torchvision.transforms import CenterCrop, Normalize, Resize

        steps = list(getattr(transform, "transforms", ()))
        self._crops = [step for step in steps if isinstance(step, CenterCrop)]
        usual = (Resize, *[CenterCrop] * len(self._crops), MaybeConvertMode, MaybeToTensor, Normalize)
        self._is_usual = tuple(type(step) for step in steps) == usual and _resizes_like_pillow(steps[0])
        self._steps, self._transform = steps, transform

    def __call__(self, image: Image) -> Any:
        """Convert an RGB image of any size to a float32 tensor [3, height, width]."""
        return self.normalize(self.resize(image)[None])[0]

    def resize(self, image: Image) -> Any:
        """Convert an RGB image to bytes [3, height, width], to the transform's result if it is unknown."""
        import torch
        from torchvision.transforms.v2 import functional

        if not self._is_usual:
            return self._transform(image)
        resize = self._steps[0]
        rows = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # the copy stays [height, width, 3]: faster
        size = [resize.size] if isinstance(resize.size, int) else list(resize.size)
        pixels = functional.resize(rows, size, resize.interpolation, resize.max_size, antialias=True)
        for crop in self._crops:
            pixels = crop(pixels)
        return pixels

    def normalize(self, batch: Any) -> Any:
        """Scale what `resize` returned, [n, 3, height, width], to float32."""
        from torchvision.transforms import functional

        if not self._is_usual:
            return batch
        scale = self._steps[-1]
        return functional.normalize(batch.float().div_(255), scale.mean, scale.std, inplace=True)


def _resizes_like_pillow(resize: Any) -> bool:
    """Return whether torch resizes bytes as Pillow does."""
    return bool(resize.antialias) and resize.interpolation.value in ("bilinear", "bicubic")


class OpenClipEncoder:
    """Encoder of texts and RGB images by an open_clip model; threads may share one.

    Preprocessing and tokenizer are the model's own. A text longer than the model's context is truncated,
    which is logged once. Not covered: languages and texts a model was not trained for.
    """

    def __init__(
        self,
        model: str,
        revision: str = "",
        device: str = "auto",
        batch: Annotated[int, Field(ge=1)] = 64,
        precision: Literal["", "float32", "bfloat16", "float16"] = "",
        threads: Annotated[int, Field(ge=1)] = 4,
        commit: str = "",
        compile: bool = False,
        jpeg_decoder: Literal["sandbox", "cuda"] = "sandbox",
    ) -> None:
        """Load the model.

        Args:
            model: an open_clip name (`ViT-B-32`), `hf-hub:OWNER/NAME`, or `local-dir:FOLDER` with open_clip's
                own files; `local-dir:pocket/catalogue/encoder` is the shipped one.
            revision: open_clip's pretrained tag; required by a plain name, unused for a folder or the hub.
            device: a torch device, or `auto` for CUDA if there is one.
            batch: texts or images in one pass, at least 1.
            precision: of the weights; empty chooses by the machine; texts of small models stay float32.
            threads: that prepare the images of a pass for a device other than the CPU, at least 1.
            commit: of the model on the hub, 40 hexadecimal digits; empty for a folder.
            compile: compile the image tower with `torch.compile` when the first images are embedded, which
                takes minutes; for large libraries on a GPU.
            jpeg_decoder: of the files of a library while it is indexed; `cuda` decodes JPEGs on the GPU with
                nvJPEG, outside the image sandbox: for libraries that are trusted.

        Raises:
            BadInput: an unknown model, tag or precision, no commit, a folder that is no open_clip model or
                has no safetensors, a batch or number of threads under 1, no compiler, or no GPU that decodes.
        """
        values = {"batch": batch, "precision": precision, "threads": threads, "jpeg_decoder": jpeg_decoder}
        check_values(type(self), values, "encoder")
        self.declare(model, revision)
        self._threads = threads
        self._name, self._batch = model, batch
        self._device = _device(device)
        if compile:
            _check_compiler(self._device)
        if jpeg_decoder != "sandbox":
            check_gpu_jpeg("encoder.jpeg_decoder", jpeg_decoder)
        self.jpeg_decoder = jpeg_decoder
        folder = _folder(model, revision, commit)
        self._model, transform, self._tokenize = _load(folder, self._device, _quick_gelu(model, revision))
        self._preparation = Preparation(transform)
        self._label = f"{model}/{revision}" if revision else _label(model)
        self._text_lock = threading.RLock()  # a tokenizer stores the length it truncates to
        self._texts: OrderedDict[str, Any] = OrderedDict()
        self._logged = set[int]()  # hashes of the texts that were reported as truncated
        self._set_precision(precision)
        if compile:
            self._model.visual.compile()

    @staticmethod
    def declare(model: str, revision: str = "", **_: Any) -> None:
        """Check the model's name without loading it; raise `BadInput`."""
        if ":" in model and revision:
            raise BadInput(
                f"encoder.revision = {revision!r}: {model!r} has weights of its own; leave it empty"
            )
        if model.startswith(LOCAL):
            locate(model.removeprefix(LOCAL))

    def _set_precision(self, precision: str) -> None:
        """Convert the weights; the id is that of the weights before they are rounded.

        Unless a precision was asked for, the texts of a small model stay in float32: they gain no time from
        another one, and their vectors then depend little on the texts beside them.
        """
        weights = sum(tensor.numel() for tensor in self._model.parameters())
        self.precision = precision or find_precision(self._device)
        if self.precision != "float32":
            import torch

            _ = self.id
            tower = self._model if precision or weights >= _SMALL else self._model.visual
            tower.to(getattr(torch, self.precision))

    @property
    def device(self) -> str:
        """Return the torch device of the model."""
        return self._device

    @cached_property
    def id(self) -> str:
        """Return the model's name and twelve digits of its weights, whatever the device and the precision."""
        digest = hashlib.sha256()
        for key, tensor in self._model.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy())
        return f"open_clip:{self._label}@{digest.hexdigest()[:12]}"

    @property
    def image_side(self) -> int:
        """Return the longer side of what the model sees, in pixels; 0 if it does not say."""
        size = getattr(self._model.visual, "image_size", 0) or 0
        return int(size) if isinstance(size, int) else max(map(int, size))

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: float32 [n, dim], rows of length 1; the last `REMEMBERED` ones are cached."""
        with self._text_lock:
            rows = {text: self._texts[text] for text in texts if text in self._texts}
            # without missing texts the width stays unknown: whoever asks for it first waits for this lock
            if missing := list(dict.fromkeys(text for text in texts if text not in rows)):
                embedded = dict(zip(missing, self._in_batches(missing, self._embed_texts), strict=True))
                rows |= embedded
                self._texts.update(embedded)
                while len(self._texts) > REMEMBERED:
                    self._texts.popitem(last=False)
        return np.stack([rows[text] for text in texts]) if rows else self._in_batches([], self._embed_texts)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Embed images of any size and mode: float32 [n, dim], rows of length 1."""
        return self._in_parallel(images, self._embed_images)

    def encode_patches(self, images: Sequence[Image]) -> Features:
        """Return the vision tower's last features: float32 [n, patches, channels], rows of any length.

        They are in the space shared by images and texts if the tower ends in a projection. Raise `BadInput`
        for a tower that has no patch features.
        """
        if not hasattr(self._model.visual, "forward_intermediates"):
            raise BadInput(f"{self._name} has no patch features.", "Choose a vision transformer.")
        return self._in_parallel(images, self._embed_patches)

    def _in_batches(self, items: Sequence[Any], embed: Callable[[Sequence[Any]], Any]) -> Vectors:
        import torch

        if not items:
            return np.zeros((0, self._dim), dtype=np.float32)
        starts = range(0, len(items), self._batch)
        with torch.inference_mode(), one_thread(self._name.removeprefix(LOCAL)):
            rows = [embed(items[start : start + self._batch]).float().cpu().numpy() for start in starts]
        return np.concatenate(rows)

    def _in_parallel(self, images: Sequence[Image], embed: Callable[[Sequence[Image]], Any]) -> Vectors:
        """Embed images; on a CPU in several parts at once, between which torch's threads are divided.

        A part on one thread waits for no other, as the threads within a matrix product do: that costs little
        on a machine of its own, and much on one that also decodes images.
        """
        import torch

        threads = torch.get_num_threads()
        parts = min(threads, len(images) // _PART)
        if parts < 2 or self._device != "cpu":
            return self._in_batches(images, embed)

        def embed_part(part: Sequence[Image]) -> Vectors:
            torch.set_num_threads(threads // parts)
            return self._in_batches(part, embed)

        most = min(self._batch, max(_PART, _PART_PIXELS // max(1, self.image_side) ** 2))
        rounds = -(-len(images) // (most * parts))
        size = -(-len(images) // (rounds * parts))  # equal, so that no thread waits for the last one
        groups = [images[start : start + size] for start in range(0, len(images), size)]
        try:
            return np.concatenate(list(self._pool.map(embed_part, groups)))
        finally:
            torch.set_num_threads(threads)  # new threads of this process begin with the number set last

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """Return threads that are kept, as torch keeps memory for each of them."""
        return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="encoder")

    @cached_property
    def _dim(self) -> int:
        return int(self.encode_text([""]).shape[1])

    def _embed_texts(self, texts: Sequence[str]) -> Any:
        self._log_truncated(texts)
        tokens = self._tokenize(list(texts)).to(self._device)
        return _normalize(self._model.encode_text(tokens))

    def _embed_images(self, images: Sequence[Image]) -> Any:
        try:
            return _normalize(self._model.encode_image(self._pixels(images)))
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException

            if not isinstance(error, TorchDynamoException):
                raise
            reason = str(error).strip().split("\n")[0]
            raise _not_compiled(f"torch cannot compile {self._name}: {reason}") from error

    def _pixels(self, images: Sequence[Image]) -> Any:
        """Return prepared images on the device: [n, 3, side, side] in the weights' precision."""
        import torch

        if self._device == "cpu":
            pixels = torch.stack([self._resized(image) for image in images])
        else:
            with ThreadPoolExecutor(self._threads) as pool:  # resizing releases the interpreter's lock
                pixels = torch.stack(list(pool.map(self._resized, images)))
        if self._device.startswith("cuda"):
            pixels = pixels.pin_memory()
        pixels = pixels.to(self._device, non_blocking=True)
        return self._preparation.normalize(pixels).to(getattr(torch, self.precision))

    def _resized(self, image: Image) -> Any:
        return self._preparation.resize(image if image.mode == "RGB" else image.convert("RGB"))

    def _embed_patches(self, images: Sequence[Image]) -> Any:
        visual = self._model.visual
        last = visual.forward_intermediates(
            self._pixels(images),
            indices=1,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
        )["image_intermediates"][0]
        projection = getattr(visual, "proj", None)
        return last if projection is None else last @ projection

    def _log_truncated(self, texts: Sequence[str]) -> None:
        context = self._tokenize.context_length
        longer = self._tokenize(list(texts), context_length=2 * context)[:, :context]
        # a truncated text has its end token sooner; SigLIP pads with that token, so padding shows nothing
        truncated = (self._tokenize(list(texts)) != longer).any(dim=1)
        for text, is_truncated in zip(texts, truncated.tolist(), strict=True):
            if is_truncated and hash(text) not in self._logged:
                self._logged.add(hash(text))
                _log.warning("truncated to the encoder's %d tokens: %.60r", context, text)


def _normalize(rows: Any) -> Any:
    from torch.nn.functional import normalize

    return normalize(rows.float(), dim=-1)  # in half precision a length is off by up to 0.4 %


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_compiler(device: str) -> None:
    """Raise `BadInput` if what `torch.compile` needs on a device is not installed."""
    if device.startswith("cuda") and find_spec("triton") is None:
        raise _not_compiled("on CUDA it needs the package `triton`")
    compilers = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    if device == "cpu" and not any(map(which, compilers)):
        raise _not_compiled(f"on the CPU it needs a C++ compiler ({', '.join(compilers)})")


def _not_compiled(reason: str) -> BadInput:
    return BadInput(f"encoder.compile = true: {reason}", "Set it to false.", field="encoder.compile")


def _label(model: str) -> str:
    return model.removeprefix(LOCAL).rstrip("/").rsplit("/", 1)[-1] if model.startswith(LOCAL) else model


def _folder(model: str, revision: str, commit: str) -> Path:
    """Return the folder that open_clip is to load; refuse what it would only warn about."""
    if model.startswith(LOCAL):
        return locate(model.removeprefix(LOCAL))
    if ":" not in model:
        _check_tag(model, revision)
    return fetch_clip(clip_source({"model": model, "revision": revision, "commit": commit}))


@serialized
def _check_tag(model: str, tag: str) -> None:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tags:
        raise BadInput(f"open_clip has no weights for {model!r}.", "See open_clip.list_pretrained().")
    if tag not in tags:
        raise BadInput(f"{model} has no weights {tag!r}.", f"Set revision to one of {', '.join(tags)}.")


@serialized
def _quick_gelu(model: str, tag: str) -> bool:
    """Return whether a tag's weights, such as OpenAI's, need QuickGELU, whatever the folder's config says."""
    import open_clip

    return bool((open_clip.get_pretrained_cfg(model, tag) or {}).get("quick_gelu"))


@serialized
def _load(folder: Path, device: str, quick_gelu: bool) -> tuple[Any, Any, Any]:
    import open_clip

    source = f"{LOCAL}{folder}"
    if may_load_pickle(folder):
        raise BadInput(f"open_clip cannot load {source!r}: it has no {WEIGHTS}, and a pickle is never read.")
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            source, device=device, force_quick_gelu=quick_gelu
        )
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        raise BadInput(f"open_clip cannot load {source!r}: {error}") from error
    return model.eval(), preprocess, open_clip.get_tokenizer(source)


def find_precision(device: str) -> str:
    """Choose bfloat16 if the device has instructions for it, else float32.

    On a CPU these are AVX512-BF16 or AMX: with them ViT-B/32 is some 4 times as fast as in float32, and the
    pocket encoder twice; without them bfloat16 was measured 40 times slower. Others, as MPS, use float32.
    """
    import torch

    supported = False
    if device == "cpu":
        queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: torch may lack them
        supported = any(getattr(torch.cpu, name, bool)() for name in queries)
    elif device.startswith("cuda"):
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if supported else "float32"
