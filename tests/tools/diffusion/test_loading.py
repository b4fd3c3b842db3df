"""Which models are opened, from where, and what is refused before a weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_pipelines as tiny
from support.generator_requests import draw

from pleinair.tools.diffusion.loading import read_index, unloadable
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.model_files import folders as weights
from pleinair.tools.model_files.hub import Source
from pleinair.tools.types import BadInput, PleinairError

COMMIT, OTHER = "a" * 40, "b" * 40
SD15: dict[str, Any] = {"pipeline": "StableDiffusionPipeline", "height": 32, "width": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd15, tmp_path_factory.mktemp("sd15"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay the pipeline into a hub cache as `owner/tiny`, where `main` is one commit."""
    place = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return place


def edit_index(folder: Path, **changes: Any) -> None:
    edit(folder / "model_index.json", **changes)


def test_a_pinned_hub_model_draws_what_its_folder_draws(cache: Path, folder: Path) -> None:
    pinned = TextOnly(model="owner/tiny", revision=COMMIT, local_files_only=True, **SD15)
    assert pinned.capabilities.id == f"text_only:owner/tiny@{COMMIT}"
    assert np.array_equal(draw(pinned), draw(TextOnly(str(folder), **SD15)))


@pytest.mark.parametrize("revision", ["", "main", "aaaaaaa", COMMIT.upper()])
def test_a_revision_that_may_change_is_refused(revision: str) -> None:
    with pytest.raises(
        BadInput, match=r"wanted a commit of owner/tiny.* Set generator\.revision to a commit"
    ):
        TextOnly(model="owner/tiny", revision=revision, **SD15)


def test_a_branch_is_taken_on_demand_and_its_commit_recorded(cache: Path) -> None:
    engine = TextOnly(model="owner/tiny", revision="main", allow_branch=True, **SD15)
    assert engine.capabilities.id == f"text_only:owner/tiny@{COMMIT}"


def test_what_is_not_in_the_cache_is_told_offline(cache: Path) -> None:
    engine = TextOnly(model="owner/tiny", revision=OTHER, **SD15)
    with pytest.raises(PleinairError, match=f"owner/tiny at {OTHER} is not in the local cache"):
        draw(engine)


@pytest.mark.parametrize("fields", [{}, {"folder": "x", "model": "owner/tiny"}])
def test_one_place_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"generator\.folder or generator\.model: wanted one"):
        Source(**fields)


@pytest.mark.parametrize("model", ["tiny", "https://example.org/x", "a/b/c", "../x/y"])
def test_an_id_is_an_id(model: str) -> None:
    with pytest.raises(BadInput, match="wanted a hub id like owner/name"):
        Source(model=model, revision=COMMIT)


def test_messages_name_the_key_that_is_wrong() -> None:
    with pytest.raises(BadInput, match=r"Set generator\.adapter_revision to a commit"):
        Source(model="owner/tiny", key="adapter_")


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no model_index\.json"):
        TextOnly(str(tmp_path), **SD15)
    with pytest.raises(BadInput, match="No model folder"):
        TextOnly(str(tmp_path / "nowhere"), **SD15)


def test_a_folder_of_another_class_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="is a StableDiffusionPipeline, not a FluxPipeline"):
        TextOnly(str(folder), pipeline="FluxPipeline")


def test_a_class_without_a_family_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="pipeline = 'DDPMPipeline': unknown here; wanted one of: Flux2Klein"):
        TextOnly(str(folder), pipeline="DDPMPipeline")


@pytest.mark.parametrize(
    "changes", [{"_class_name": ["mine", "Mine"]}, {"unet": ["mine", "UNet"]}, {"vae": ["os", "system"]}]
)
def test_a_model_that_brings_code_is_refused(copy: Path, changes: dict[str, Any]) -> None:
    edit_index(copy, **changes)
    with pytest.raises(BadInput, match="no code from a model is run"):
        TextOnly(str(copy), **SD15)


def test_a_file_of_code_is_refused(copy: Path) -> None:
    (copy / "unet" / "mine.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(BadInput, match="no code from a model is run"):
        TextOnly(str(copy), **SD15)


def test_an_index_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="no JSON"):
        read_index(copy)


def test_only_safetensors_are_read(copy: Path) -> None:
    (file,) = (copy / "unet").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(BadInput, match="cannot be loaded: .*safetensors"):
        draw(TextOnly(str(copy), **SD15))


def cut(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part gone": (lambda folder: shutil.rmtree(folder / "vae"), "vae: no config is here"),
    "weights gone": (
        lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").unlink(),
        "unet: no safetensors weights are here",
    ),
    "weights cut off": (
        lambda folder: cut(folder / "text_encoder/model.safetensors"),
        r"text_encoder/model.safetensors: [\d,]+ bytes, wanted [\d,]+",
    ),
    "weights of noise": (
        lambda folder: (folder / "text_encoder/model.safetensors").write_bytes(b"x" * 5000),
        "text_encoder/model.safetensors: no safetensors",
    ),
    # without it transformers builds its class's largest model, at random
    "a config gone": (
        lambda folder: (folder / "text_encoder/config.json").unlink(),
        "text_encoder: no config(.json)? is here",
    ),
    "a config cut off": (lambda folder: cut(folder / "unet/config.json"), "unet/config.json: "),
    "a tokenizer broken": (
        lambda folder: (folder / "tokenizer/tokenizer.json").write_text("{}"), "cannot be loaded: "
    ),
    "fewer weights than wanted": (
        lambda folder: edit(folder / "unet/config.json", transformer_layers_per_block=2),
        "unet has fewer weights than its config wants",
    ),
    "weights of other sizes": (
        lambda folder: edit(folder / "unet/config.json", cross_attention_dim=32),
        "cannot be loaded: .* shape",
    ),
}  # fmt: skip


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), encoding="utf-8")


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_folder_is_told_each_time_and_draws_once_it_is_mended(
    copy: Path, folder: Path, name: str
) -> None:
    break_it, says = BREAKS[name]
    engine = TextOnly(str(copy), **SD15)
    break_it(copy)
    for _ in range(2):
        with pytest.raises(BadInput, match=says) as caught:
            draw(engine)
        assert "`pleinair models check`" in str(caught.value) and "\n" not in str(caught.value)
    shutil.rmtree(copy)
    shutil.copytree(folder, copy)
    draw(engine)


def test_a_lack_of_memory_while_loading_is_no_fault_of_the_folder() -> None:
    lack = MemoryError("no more")
    assert unloadable(Path("x"), lack) is lack


def test_a_variant_is_loaded_and_a_part_without_it_from_its_first_set(copy: Path, folder: Path) -> None:
    for part in ("unet", "text_encoder"):
        (file,) = (copy / part).glob("*.safetensors")
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    with pytest.raises(BadInput, match=r"only .*\.fp16\.safetensors: generator\.variant names such a set"):
        draw(TextOnly(str(copy), **SD15))
    half = draw(TextOnly(str(copy), variant="fp16", **SD15))
    assert np.array_equal(half, draw(TextOnly(str(folder), **SD15)))


def test_a_variant_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot be loaded: .*variant=fp16"):
        draw(TextOnly(str(folder), variant="fp16", **SD15))


def test_a_size_that_the_model_cannot_draw_is_refused_before_it_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"generator\.height = 33: input should be a multiple of 8"):
        TextOnly(str(folder), **{**SD15, "height": 33})
    coarse = Path(shutil.copytree(folder, tmp_path / "coarse"))
    edit(coarse / "vae" / "config.json", block_out_channels=[8] * 6)  # that is 32 pixels
    engine = TextOnly(str(coarse), **SD15)
    assert engine.capabilities.multiple_of == 32
    with pytest.raises(BadInput, match="draws in multiples of 32 pixels, asked for 32 × 40"):
        draw(engine, height=40)
    assert not engine._forms


def test_a_folder_is_named_by_its_bytes(copy: Path, folder: Path) -> None:
    assert weights.identity(copy) == weights.identity(folder) == weights.checksum(folder)
    edit_index(copy, requires_safety_checker=True)
    assert weights.identity(copy) != weights.identity(folder)


def test_a_large_folder_is_named_without_reading_its_tensors(
    copy: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SMALL", 4096)
    short = weights.identity(folder)
    assert short.startswith("~")
    (file,) = (copy / "unet").glob("*.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert weights.identity(copy) == short
    edit_index(copy, requires_safety_checker=True)
    assert weights.identity(copy) != short
