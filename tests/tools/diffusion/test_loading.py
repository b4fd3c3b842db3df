"""Where models are loaded from, and what is refused before a weight is read."""

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

from pleinair.tools.diffusion.loading import loading_error, read_index
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.model_files import folders
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
    """Copy the pipeline into a hub cache as `owner/tiny`, where `main` is one commit."""
    repository = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def edit_index(folder: Path, **changes: Any) -> None:
    edit(folder / "model_index.json", **changes)


def test_a_pinned_hub_model_generates_what_its_folder_generates(cache: Path, folder: Path) -> None:
    pinned = TextOnly(model="owner/tiny", revision=COMMIT, local_files_only=True, **SD15)
    assert pinned.capabilities.id == f"text_only:owner/tiny@{COMMIT}"
    assert np.array_equal(draw(pinned), draw(TextOnly(str(folder), **SD15)))


@pytest.mark.parametrize("revision", ["", "main", "aaaaaaa", COMMIT.upper()])
def test_a_revision_that_may_change_is_refused(revision: str) -> None:
    with pytest.raises(BadInput, match=r"wanted a commit of owner/tiny.* Set generator\.revision to"):
        TextOnly(model="owner/tiny", revision=revision, **SD15)


def test_a_branch_is_accepted_on_demand_and_its_commit_recorded(cache: Path) -> None:
    engine = TextOnly(model="owner/tiny", revision="main", allow_branch=True, **SD15)
    assert engine.capabilities.id == f"text_only:owner/tiny@{COMMIT}"


def test_a_commit_that_is_not_in_the_cache_is_reported(cache: Path) -> None:
    engine = TextOnly(model="owner/tiny", revision=OTHER, **SD15)
    with pytest.raises(PleinairError, match=f"owner/tiny at {OTHER} is not downloaded"):
        draw(engine)


@pytest.mark.parametrize("fields", [{}, {"folder": "x", "model": "owner/tiny"}])
def test_exactly_one_location_is_accepted(fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"generator\.folder or generator\.model: wanted one"):
        Source(**fields)


@pytest.mark.parametrize("model", ["tiny", "https://example.org/x", "a/b/c", "../x/y"])
def test_only_a_hub_id_is_accepted(model: str) -> None:
    with pytest.raises(BadInput, match="wanted a hub id like owner/name"):
        Source(model=model, revision=COMMIT)


def test_messages_name_the_wrong_key() -> None:
    with pytest.raises(BadInput, match=r"Set generator\.adapter_revision to a commit"):
        Source(model="owner/tiny", prefix="adapter_")


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no model_index\.json"):
        TextOnly(str(tmp_path), **SD15)
    with pytest.raises(BadInput, match="No model folder"):
        TextOnly(str(tmp_path / "nowhere"), **SD15)


def test_a_folder_of_another_class_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="is a StableDiffusionPipeline, not a FluxPipeline"):
        TextOnly(str(folder), pipeline="FluxPipeline")


def test_a_class_without_a_family_is_refused(folder: Path) -> None:
    with pytest.raises(
        BadInput, match="pipeline = 'DDPMPipeline': not supported by this backend; wanted one of: Flux2Klein"
    ):
        TextOnly(str(folder), pipeline="DDPMPipeline")


@pytest.mark.parametrize(
    "changes", [{"_class_name": ["mine", "Mine"]}, {"unet": ["mine", "UNet"]}, {"vae": ["os", "system"]}]
)
def test_a_model_with_its_own_code_is_refused(copy: Path, changes: dict[str, Any]) -> None:
    edit_index(copy, **changes)
    with pytest.raises(BadInput, match="no code from a model is run"):
        TextOnly(str(copy), **SD15)


def test_a_file_of_code_is_refused(copy: Path) -> None:
    (copy / "unet" / "mine.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(BadInput, match="no code from a model is run"):
        TextOnly(str(copy), **SD15)


def test_an_index_that_is_not_json_is_refused(copy: Path) -> None:
    (copy / "model_index.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="not JSON"):
        read_index(copy)


def test_only_safetensors_are_read(copy: Path) -> None:
    (file,) = (copy / "unet").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(BadInput, match="cannot be loaded: .*safetensors"):
        draw(TextOnly(str(copy), **SD15))


def truncate(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "part missing": (lambda folder: shutil.rmtree(folder / "vae"), "vae: no config"),
    "weights missing": (
        lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").unlink(),
        "unet: no safetensors weights",
    ),
    "weights truncated": (
        lambda folder: truncate(folder / "text_encoder/model.safetensors"),
        r"text_encoder/model.safetensors: [\d,]+ bytes instead of [\d,]+",
    ),
    "weights of another format": (
        lambda folder: (folder / "text_encoder/model.safetensors").write_bytes(b"x" * 5000),
        "text_encoder/model.safetensors: not safetensors",
    ),
    # without it transformers builds its class's largest model, at random
    "config missing": (
        lambda folder: (folder / "text_encoder/config.json").unlink(),
        "text_encoder: no config",
    ),
    "config truncated": (lambda folder: truncate(folder / "unet/config.json"), "unet/config.json: "),
    "tokenizer broken": (
        lambda folder: (folder / "tokenizer/tokenizer.json").write_text("{}"), "cannot be loaded: "
    ),
    "fewer weights than in the config": (
        lambda folder: edit(folder / "unet/config.json", transformer_layers_per_block=2),
        "unet has fewer weights than its config demands",
    ),
    "weights of other shapes": (
        lambda folder: edit(folder / "unet/config.json", cross_attention_dim=32),
        "cannot be loaded: .* shape",
    ),
}  # fmt: skip


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), encoding="utf-8")


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_folder_is_refused_until_it_is_repaired(copy: Path, folder: Path, name: str) -> None:
    damage, message = BREAKS[name]
    engine = TextOnly(str(copy), **SD15)
    damage(copy)
    for _ in range(2):
        with pytest.raises(BadInput, match=message) as error:
            draw(engine)
        assert "`pleinair models check`" in str(error.value) and "\n" not in str(error.value)
    shutil.rmtree(copy)
    shutil.copytree(folder, copy)
    draw(engine)


def test_a_lack_of_memory_while_loading_is_not_a_fault_of_the_folder() -> None:
    error = MemoryError("no more")
    assert loading_error(Path("x"), error) is error


def test_a_variant_is_loaded_and_of_a_part_without_it_the_first_set(copy: Path, folder: Path) -> None:
    for part in ("unet", "text_encoder"):
        (file,) = (copy / part).glob("*.safetensors")
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    with pytest.raises(BadInput, match=r"only .*\.fp16\.safetensors: set generator\.variant to load"):
        draw(TextOnly(str(copy), **SD15))
    half = draw(TextOnly(str(copy), variant="fp16", **SD15))
    assert np.array_equal(half, draw(TextOnly(str(folder), **SD15)))


def test_a_missing_variant_is_reported(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot be loaded: .*variant=fp16"):
        draw(TextOnly(str(folder), variant="fp16", **SD15))


def test_an_impossible_size_is_refused_before_loading(folder: Path, tmp_path: Path) -> None:
    coarse = Path(shutil.copytree(folder, tmp_path / "coarse"))
    edit(coarse / "vae" / "config.json", block_out_channels=[8] * 6)  # that is 32 pixels
    message = r"generator\.height and width: .* generates multiples of 32 pixels, got 32 × 40"
    with pytest.raises(BadInput, match=message):
        TextOnly(str(coarse), **{**SD15, "height": 40})
    engine = TextOnly(str(coarse), **SD15)
    assert engine.capabilities.multiple_of == 32
    with pytest.raises(BadInput, match="generates multiples of 32 pixels, got 32 × 40"):
        draw(engine, height=40)
    assert not engine._pipelines


def test_the_id_of_a_folder_covers_its_bytes(copy: Path, folder: Path) -> None:
    assert folders.identity(copy) == folders.identity(folder) == folders.checksum(folder)
    edit_index(copy, requires_safety_checker=True)
    assert folders.identity(copy) != folders.identity(folder)


def test_the_id_of_a_large_folder_does_not_cover_its_tensors(
    copy: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SMALL", 4096)
    short = folders.identity(folder)
    assert short.startswith("~")
    (file,) = (copy / "unet").glob("*.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert folders.identity(copy) == short
    edit_index(copy, requires_safety_checker=True)
    assert folders.identity(copy) != short
