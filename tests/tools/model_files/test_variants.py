"""Of weights in several formats one set is fetched, checked and loaded."""

from fnmatch import fnmatch

import pytest

from pleinair.tools.diffusion.controlnet import branch_files
from pleinair.tools.model_files.variants import Files, pipeline_files, select_shard_indexes, select_weights

# as SDXL's repository has them: both sets of every model, other formats beside them, a tokenizer
NAMES = [
    "model_index.json",
    "sd_xl_base_1.0.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/model.onnx",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.non_ema.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
]
PARTS = ("unet", "vae", "tokenizer")
SHARDED = [
    "t5/config.json",
    "t5/model.safetensors.index.json",
    "t5/model-00001-of-00002.safetensors",
    "t5/model-00002-of-00002.safetensors",
    "t5/model.safetensors.index.fp16.json",
    "t5/model.fp16-00001-of-00002.safetensors",
    "t5/model.fp16-00002-of-00002.safetensors",
]


def fetched(names: list[str], files: Files) -> set[str]:
    """Select names as the hub's client does."""
    matching, ignored = (
        {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)} for patterns in files
    )
    return matching - ignored


def test_without_a_variant_the_first_set_is_fetched() -> None:
    assert fetched(NAMES, pipeline_files(PARTS)) == {
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
    }  # fmt: skip


def test_a_variant_is_fetched_alone_and_of_a_part_without_it_the_first_set() -> None:
    assert fetched(NAMES, pipeline_files(PARTS, "fp16", NAMES)) == {
        "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
    }  # fmt: skip


@pytest.mark.parametrize("variant", ["", "fp16"])
def test_shards_are_fetched_with_their_own_index(variant: str) -> None:
    both = fetched(SHARDED, pipeline_files(["t5"], variant, SHARDED))
    (index,) = select_shard_indexes((name.removeprefix("t5/") for name in both), variant)
    assert index == ("model.safetensors.index.fp16.json" if variant else "model.safetensors.index.json")
    assert len([name for name in both if name.endswith(".safetensors")]) == 2
    assert all(("fp16" in name) is bool(variant) for name in both if "of-" in name or "index" in name)


def test_a_branch_has_its_variant_or_its_first_set() -> None:
    plain, half = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
    names = ["config.json", plain, half, "other/diffusion_pytorch_model.fp16.safetensors"]
    assert fetched(names, branch_files("fp16", names)) == {"config.json", half}
    assert fetched(names[:2], branch_files("fp16", names[:2])) == {"config.json", plain}
    assert fetched(names, branch_files()) == {"config.json", plain}


def test_one_set_of_weights_is_selected() -> None:
    names = ["model.safetensors", "model.fp16.safetensors", "model.bin"]
    assert select_weights(names) == ["model.safetensors"]
    assert select_weights(names, "fp16") == ["model.fp16.safetensors"]
    assert select_weights(names[:1], "fp16") == ["model.safetensors"]
    assert select_weights(["model.fp16.safetensors"]) == []
