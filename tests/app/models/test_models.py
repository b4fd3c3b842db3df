"""The models that a profile needs, whether their files are complete, and their download from a local hub."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.fake_hub import COMMIT, Hub, cached, serving, weights
from typer.testing import CliRunner, Result

from pleinair.app.cli.main import app
from pleinair.app.models.inventory import ProfileModel, find_faults, format_size, profile_models
from pleinair.app.settings import Settings, load, profiles

MAIN = "from pleinair.app.cli.main import main; main()"
OWNER, OTHER = "tests/tiny", "tests/adapter"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
}


def tiny() -> dict[str, bytes]:
    """Return the files of a pipeline, with some that nothing here opens."""
    return {
        "model_index.json": json.dumps(INDEX).encode(),
        "unet/config.json": b'{"_class_name": "UNet2DConditionModel"}',
        "unet/diffusion_pytorch_model.safetensors": weights(2000),
        "unet/diffusion_pytorch_model.fp16.safetensors": weights(1000),
        "tokenizer/tokenizer_config.json": b"{}",
        "tokenizer/merges.txt": b"a b\n",
        "all_in_one.safetensors": weights(9000),
        "unet/diffusion_pytorch_model.bin": b"a pickle",
        "README.md": b"---\nlicense: mit\n---\n",
    }


def adapter() -> dict[str, bytes]:
    return {
        "models/plus.safetensors": weights(),
        "models/other.safetensors": weights(),
        "models/image_encoder/config.json": b"{}",
        "models/image_encoder/model.safetensors": weights(),
    }


FLUX = json.dumps(INDEX | {"_class_name": "FluxPipeline"}).encode()
HUB = {OWNER: tiny(), OTHER: adapter()}
OPENED = {name for name in tiny() if "fp16" not in name and name.count("/") and not name.endswith(".bin")}
PROFILE = f"""
extends = "pocket"
[generator]
backend = "ip_adapter"
pipeline = "StableDiffusionPipeline"
model = "{OWNER}"
revision = "{COMMIT}"
adapter_model = "{OTHER}"
adapter_revision = "{COMMIT}"
adapter_subfolder = "models"
adapter_weight = "plus.safetensors"
"""


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return str(path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide an empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """Return the folder of the pipeline in a cache with all that the profile needs."""
    cached(cache, OTHER, {name: data for name, data in adapter().items() if "other" not in name})
    return cached(
        cache,
        OWNER,
        {name: data for name, data in tiny().items() if name in OPENED or name == "model_index.json"},
    )


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", *words])


def by_role(settings: Settings) -> dict[str, ProfileModel]:
    return {model.role: model for model in profile_models(settings)}


def faults_of(profile: str, checksums: bool = False) -> list[str]:
    return [fault for model in profile_models(load(profile)) for fault in find_faults(model, checksums)]


def replace(path: Path, data: bytes) -> None:
    """Change the file to which a link of the cache points."""
    path.resolve().write_bytes(data)


@pytest.mark.parametrize("name", sorted(profiles()))
def test_the_license_in_a_profile_is_that_of_the_list(name: str) -> None:
    head = profiles()[name].read_text("utf-8").partition("\n\n")[0].lower()
    license = by_role(load(name))["generator"].license
    for word in ("apache-2.0", "non-commercial", "gated"):
        assert (word in license) == (word in head) or not license, f"{head!r}: {license!r}"
    assert license or not re.search("apache|non-commercial|gated", head)


def test_every_packaged_profile_is_listed_without_the_hub(cache: Path) -> None:
    listed = json.loads(call("list", "--json").stdout)
    assert sorted(listed) == sorted(profiles())
    assert {row["role"] for row in listed["sdxl"]} == {"generator", "adapter", "encoder", "mllm"}
    klein = listed["klein"][0]
    assert klein["model"] == "black-forest-labs/FLUX.2-klein-4B" and klein["license"] == "apache-2.0"
    assert len(klein["revision"]) == 40 and klein["state"] == "not downloaded"
    assert listed["omnigen"][0]["state"] == "not pinned: a pull pins the current commit"
    assert listed["sglang"][0]["state"] == "at http://127.0.0.1:30000/v1"
    assert listed["pocket"][0]["state"].startswith("complete, ")
    assert "klein\n  generator   black-forest-labs/FLUX.2-klein-4B  e7b7dc27f91d" in call("list").stdout


def test_the_listed_models_are_those_that_the_backend_loads(profile: str) -> None:
    from pleinair.app.engines import build_backend

    settings = load(profile)
    built: Any = build_backend("generator", settings.generator)
    models = by_role(settings)
    assert models["generator"].source() == built.source
    assert models["adapter"].source() == built.adapter_source
    assert models["generator"].settings == built.settings


def test_a_complete_model_has_no_faults(snapshot: Path, profile: str) -> None:
    assert faults_of(profile, checksums=True) == []
    result = call("check", profile, "--checksums")
    assert result.exit_code == 0 and f"ok  generator: {OWNER}, complete, 2 kB" in result.stdout


@pytest.mark.parametrize("name", ["pocket", "openai"])
def test_the_shipped_models_have_no_faults(name: str) -> None:
    assert faults_of(name) == []


def test_a_model_that_is_not_downloaded_is_reported_with_the_command_to_use(
    cache: Path, profile: str
) -> None:
    result = call("check", profile)
    assert result.exit_code == 5
    assert "not downloaded" in result.stdout and f"`pleinair models pull {profile}`" in result.stdout


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (WEIGHTS, weights(2000)[:-1], f"{WEIGHTS}: 2,0"),
        (WEIGHTS, b"a pickle", f"{WEIGHTS}: not safetensors"),
        (WEIGHTS, b"", f"{WEIGHTS}: not safetensors"),
        ("unet/config.json", b"{", "unet/config.json: Expecting"),
        ("model_index.json", b"{", "is not JSON"),
        ("model_index.json", FLUX, "is a FluxPipeline, not a"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_reported(
    snapshot: Path, profile: str, name: str, data: bytes, message: str
) -> None:
    replace(snapshot / name, data)
    (fault,) = faults_of(profile)
    assert message in fault


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "unet: no safetensors weights"),
        ("tokenizer/tokenizer_config.json", "tokenizer: no config"),
        ("model_index.json", "has no model_index.json"),
    ],
)
def test_a_missing_file_is_reported(snapshot: Path, profile: str, name: str, message: str) -> None:
    (snapshot / name).unlink()
    (fault,) = faults_of(profile)
    assert message in fault
    assert ", incomplete, " in call("check", profile).stdout


def test_a_missing_shard_is_reported(snapshot: Path, profile: str) -> None:
    shards = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (snapshot / "unet/model.safetensors.index.json").write_text(json.dumps(shards))
    (snapshot / "unet/one.safetensors").write_bytes(weights())
    assert faults_of(profile) == ["unet/two.safetensors: missing"]


def test_an_adapter_is_checked_too(snapshot: Path, profile: str, cache: Path) -> None:
    (cache / "models--tests--adapter" / "snapshots" / COMMIT / "models" / "plus.safetensors").unlink()
    assert faults_of(profile) == ["models/plus.safetensors: missing"]


def test_changed_bytes_of_the_right_length_are_found_by_their_checksum(snapshot: Path, profile: str) -> None:
    path = snapshot / "unet/diffusion_pytorch_model.safetensors"
    replace(path, path.read_bytes()[:-1] + b"!")
    replace(snapshot / "tokenizer/merges.txt", b"c d\n")
    assert faults_of(profile) == []
    assert sorted(faults_of(profile, checksums=True)) == [
        "tokenizer/merges.txt: differs from its checksum",
        "unet/diffusion_pytorch_model.safetensors: differs from its checksum",
    ]


def test_an_unknown_profile_is_bad_input() -> None:
    for command in ("check", "pull"):
        result = call(command, "nobody")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(("size", "text"), [(999, "999 bytes"), (8_400, "8 kB"), (23_800_000_000, "23.8 GB")])
def test_sizes_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.fixture
def hub() -> Iterator[str]:
    """Serve a hub on this machine and yield its address."""
    with serving(HUB) as address:
        yield address


def pull(profile: str, cache: Path, hub: str, *words: str, **environment: str) -> Any:
    """Run a pull in a process of its own, which reads the hub's address when it starts."""
    defaults = {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-c", MAIN, "models", "pull", profile, *words],
        env=os.environ | defaults | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_a_pull_prints_its_plan_and_requires_a_yes(cache: Path, profile: str, hub: str) -> None:
    result = pull(profile, cache, hub)
    assert result.returncode == 2, result.stderr
    size = sum(len(tiny()[name]) for name in OPENED)
    plan = f"generator: {OWNER} at {COMMIT}, license mit: {len(OPENED)} files, {format_size(size)}"
    assert plan in result.stdout and "--yes" in result.stderr
    assert {line for line in Hub.requests if line.startswith("GET resolve")} <= {
        "GET resolve model_index.json"
    }


def test_a_pull_downloads_only_the_files_that_are_opened(cache: Path, profile: str, hub: str) -> None:
    result = pull(profile, cache, hub, "--yes")
    assert result.returncode == 0, result.stderr
    folder = cache / "models--tests--tiny" / "snapshots" / COMMIT
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == OPENED | {"model_index.json"}
    assert not any("other.safetensors" in line for line in Hub.requests)
    assert faults_of(profile, checksums=True) == []
    again = pull(profile, cache, hub)
    assert again.returncode == 0 and "All files were there already." in again.stdout


def test_a_pull_of_a_variant_downloads_no_other_weights(cache: Path, profile: str, hub: str) -> None:
    half = {"PLEINAIR_GENERATOR__VARIANT": "fp16"}
    result = pull(profile, cache, hub, "--yes", **half)
    assert result.returncode == 0, result.stderr
    folder = cache / "models--tests--tiny" / "snapshots" / COMMIT / "unet"
    assert [path.name for path in folder.glob("*.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    settings = load(profile, {"generator.variant": "fp16"})
    assert not [fault for model in profile_models(settings) for fault in find_faults(model)]
    (fault,) = faults_of(profile)  # without a variant the first set is required
    assert "only diffusion_pytorch_model.fp16.safetensors: set generator.variant" in fault


def test_a_pull_repairs_missing_files(cache: Path, profile: str, hub: str) -> None:
    pull(profile, cache, hub, "--yes")
    folder = cache / "models--tests--tiny" / "snapshots" / COMMIT
    (folder / "unet/config.json").resolve().unlink()  # its bytes too
    (folder / "unet/config.json").unlink()
    (folder / WEIGHTS).unlink()  # the link only
    assert len(faults_of(profile)) == 1
    result = pull(profile, cache, hub, "--yes")
    assert result.returncode == 0 and f": 1 file, {len(tiny()['unet/config.json'])} bytes" in result.stdout
    assert faults_of(profile) == []


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"PLEINAIR_GENERATOR__LOCAL_FILES_ONLY": "true"}]
)
def test_a_pull_offline_is_refused(cache: Path, profile: str, hub: str, environment: dict[str, str]) -> None:
    result = pull(profile, cache, hub, "--yes", **environment)
    assert (result.returncode, result.stderr.count("\n")) == (5, 2)  # the fault and the remedy
    assert "nothing is downloaded" in result.stderr and Hub.requests == []


def test_a_model_that_the_hub_does_not_have_is_reported_in_one_line(
    cache: Path, profile: str, hub: str
) -> None:
    result = pull(profile, cache, hub, "--yes", PLEINAIR_GENERATOR__MODEL="tests/none")
    assert result.returncode == 5 and "Traceback" not in result.stderr
    assert "tests/none" in result.stderr
