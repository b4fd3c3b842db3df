"""Throughput of the encoder: decoding, embedding, and indexing as `pleinair index` does it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pleinair.app.index import open_indexed, unwatched
from pleinair.app.models.inventory import encoder_model, find_missing_files
from pleinair.app.paths import Paths
from pleinair.app.settings import Settings, load
from pleinair.app.verify.plan import POCKET, Plan, Row, Say
from pleinair.tools.model_files.open_clip import LOCAL

if TYPE_CHECKING:
    from PIL.Image import Image

MODEL = "ViT-B-32"
_SIDE = 1024  # pixels of the JPEG files
_COUNTS = {"cuda": 1024, "cpu": 64}  # images
_TINY = 8


def time_encoder(plan: Plan, say: Say) -> Iterator[Row]:
    """Yield a row for decoding, embedding of images and of texts, and indexing, with its items a second.

    The encoder is that of the first profile, with random weights where they are not downloaded; the tiny form
    has the shipped one.
    """
    count, side = (_TINY, 64) if plan.tiny else (_COUNTS[plan.device], _SIDE)
    work = Path(plan.work)
    settings, weights = _encoder_settings(plan, work)
    say(f"{count} JPEG files")
    files = _write_photographs(work / "photographs", count, side)
    say("decoding and embedding")
    facts = {"n": count, "side": side, "weights": weights, "model": _label(settings)}
    placed: Row = {}
    for what, seconds, placed in _embed(settings, files):
        yield {"what": what, "per_s": count / seconds, **facts, **placed}
    say("indexing the files")
    yield {
        "what": "index files, from start to end",
        "per_s": count / _index(settings, work),
        **facts,
        **placed,
    }
    if plan.device == "cuda":
        on_gpu, _ = _encoder_settings(plan, work, jpeg_decoder="cuda")
        yield {
            "what": "index files, JPEG on the GPU",
            "per_s": count / _index(on_gpu, work),
            **facts,
            **placed,
        }


def _index(settings: Settings, work: Path) -> float:
    """Index the library without an earlier index; return the seconds."""
    home = Paths(work / "encoder-home")
    shutil.rmtree(home.home, ignore_errors=True)
    return _timed(lambda: open_indexed(settings, home, unwatched))[1]


def _embed(settings: Settings, files: Sequence[Path]) -> Iterator[tuple[str, float, Row]]:
    """Yield what was done with each of the files, in how many seconds, and on which device."""
    from pleinair.tools.retrieval.encoder import OpenClipEncoder

    images, seconds = _timed(lambda: [_decode(file) for file in files])
    yield "decode, one thread", seconds, {"device": "cpu", "precision": ""}
    encoder = OpenClipEncoder(**settings.encoder.arguments)
    placed = {"device": encoder.device, "precision": encoder.precision}
    encoder.encode_images(images[:64])
    yield "embed decoded images", _timed(lambda: encoder.encode_images(images))[1], placed
    encoder.encode_text(["a finch"])
    texts = [f"a finch on branch {number}" for number in range(len(files))]
    yield "embed texts", _timed(lambda: encoder.encode_text(texts))[1], placed
    if encoder.device == "cuda":
        compiled = OpenClipEncoder(**settings.encoder.arguments | {"compile": True})
        compiled.encode_images(images)  # which compiles
        yield "embed decoded images, compiled", _timed(lambda: compiled.encode_images(images))[1], placed


def _label(settings: Settings) -> str:
    name = str(settings.encoder.arguments.get("model"))
    return POCKET if name.startswith(f"{LOCAL}{POCKET}") else MODEL if name.startswith(LOCAL) else name


def _encoder_settings(plan: Plan, work: Path, **arguments: str) -> tuple[Settings, str]:
    """Return settings of a library in the work folder under an encoder of this process, and its weights."""
    overrides: dict[str, Any] = {"library.folder": str(work / "photographs"), "worker.encoder": False}
    profile = POCKET if plan.tiny else plan.profiles[0]
    overrides |= {f"encoder.{key}": value for key, value in ({"device": plan.device} | arguments).items()}
    settings = load(profile, overrides)
    model = encoder_model(settings.encoder)
    is_random = model.on_hub and (not model.revision or find_missing_files(model)[0])
    if is_random:
        folder = _write_random_clip(work / "encoder")
        choice = {"backend": "open_clip", "model": f"{LOCAL}{folder}", "revision": "", "commit": ""}
        overrides |= {f"encoder.{key}": value for key, value in choice.items()}
        settings = load(profile, overrides)
    return settings, "random" if is_random else "real"


def _write_random_clip(folder: Path, name: str = MODEL) -> Path:
    """Write a model of open_clip with random weights, as open_clip saves one; return its folder."""
    import open_clip
    from safetensors.torch import save_file

    weights = folder / "open_clip_model.safetensors"
    if weights.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model = open_clip.create_model(name, load_weights=False)
    preprocessing = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), weights)
    return folder


def _write_photographs(folder: Path, count: int, side: int) -> Sequence[Path]:
    """Write `count` JPEG files of side × side pixels with coarse and fine noise; return their paths."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        fine = rng.integers(-8, 9, pixels.shape, dtype=np.int16)
        Image.fromarray(np.clip(pixels + fine, 0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def _decode(path: Path) -> Image:
    from PIL import Image

    with Image.open(path) as file:
        return file.convert("RGB")


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = perf_counter()
    value = call()
    return value, perf_counter() - started
