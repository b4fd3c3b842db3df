"""Cache of what a pipeline's encoders returned: prompts, the latents of references, and image embeddings.

The attempts of a run repeat its prompt, its negative prompt and its references, as do the images of one
request. For the block of a call the encoders of the pipeline look their arguments up by content; an equal
call gets the tensors of the first one, so the image is the same to the bit. What is sampled from an
autoencoder's distribution is sampled anew. Not covered: classes without an encoder of their own (OmniGen
tokenizes only), and calls with arguments that are neither numbers, texts, images nor tensors.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

MIB = 2**20
METHODS = ("encode_prompt", "encode_image")  # of pipelines; an autoencoder's is `encode`


class Encodings:
    """Cache of encoder calls, bounded in bytes; the calls that are used least recently leave first.

    The tensors stay on the device on which they were made. `hits` and `misses` count the calls so far.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes; 0 caches nothing
        self._entries: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()  # values and their bytes
        self.size = self.hits = self.misses = 0

    def clear(self) -> bool:
        """Drop all values; return whether there was one."""
        had_entries = bool(self._entries)
        self._entries.clear()
        self.size = 0
        return had_entries

    @contextmanager
    def used_by(self, pipeline: Any) -> Iterator[None]:
        """Let the encoders of a pipeline use the cache within the block."""
        if not self._limit:
            yield
            return
        owners = [(pipeline, name) for name in METHODS if hasattr(pipeline, name)]
        owners.append((pipeline.vae, "encode"))
        before = [(owner, name, name in vars(owner), getattr(owner, name)) for owner, name in owners]
        for owner, name, _, method in before:
            setattr(owner, name, self._cached(f"{type(owner).__name__}.{name}", method))
        try:
            yield
        finally:
            for owner, name, is_instance_attribute, method in before:
                if is_instance_attribute:
                    setattr(owner, name, method)
                else:
                    delattr(owner, name)

    def _cached(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            key = _digest((name, args, kwargs))
            if key is None:
                return method(*args, **kwargs)
            if key in self._entries:
                self.hits += 1
                self._entries.move_to_end(key)
                return _clone(self._entries[key][0])
            self.misses += 1
            value = method(*args, **kwargs)
            self._keep(key, value)
            return value

        return call

    def _keep(self, key: bytes, value: Any) -> None:
        size = sum(tensor.nbytes for tensor in _tensors(value))
        if not 0 < size <= self._limit:
            return
        self._entries[key] = _clone(value), size
        self.size += size
        while self.size > self._limit:
            _, (_, size) = self._entries.popitem(last=False)
            self.size -= size


def _digest(value: Any) -> bytes | None:
    """Return a hash of arguments by content; None if one has a type whose content is not known."""
    content = hashlib.blake2b(digest_size=32)
    try:
        for part in _parts(value):
            content.update(len(part).to_bytes(8, "big"))
            content.update(part)
    except TypeError:
        return None
    return content.digest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yield the content of a value; raise `TypeError` for an unknown type."""
    import torch
    from PIL.Image import Image

    if value is None or isinstance(value, bool | int | float | str | torch.device | torch.dtype):
        yield f"{type(value).__name__}:{value!r}".encode()
    elif isinstance(value, torch.Tensor):
        yield f"tensor:{value.dtype}:{tuple(value.shape)}:{value.device}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Image):
        yield f"image:{value.mode}:{value.size}".encode()
        yield value.tobytes()
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__}:{len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, dict):
        yield f"dict:{len(value)}".encode()
        for name in sorted(value):
            yield from _parts(name)
            yield from _parts(value[name])
    else:
        raise TypeError(type(value).__name__)


def _clone(value: Any) -> Any:
    """Return a copy that shares no tensor and no container, as a caller may change them in place."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, list | tuple):
        return type(value)(map(_clone, value))
    if isinstance(value, Mapping):  # diffusers' outputs are such
        return type(value)(**{name: _clone(item) for name, item in value.items()})
    # an autoencoder's distribution: its tensors are only read, and its attributes may be replaced
    return copy(value)


def _tensors(value: Any) -> Iterator[Any]:
    """Yield the tensors of a result."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)
    elif hasattr(value, "__dict__"):
        yield from (item for item in vars(value).values() if isinstance(item, torch.Tensor))
