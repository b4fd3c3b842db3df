"""Which models a profile needs, whether their files are whole, and fetching them from a hub right here."""

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
from pleinair.app.models.inventory import Piece, faults, in_words, pieces
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
    """Give the files of a pipeline, with some that nothing here opens."""
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
    """Give an empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """Give the folder of the pipeline in a cache that holds all that the profile wants."""
    cached(cache, OTHER, {name: data for name, data in adapter().items() if "other" not in name})
    return cached(
        cache,
        OWNER,
        {name: data for name, data in tiny().items() if name in OPENED or name == "model_index.json"},
    )


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", *words])


def by_role(settings: Settings) -> dict[str, Piece]:
    return {piece.role: piece for piece in pieces(settings)}


def wrong(profile: str, checksums: bool = False) -> list[str]:
    return [fault for piece in pieces(load(profile)) for fault in faults(piece, checksums)]


def replace(path: Path, data: bytes) -> None:
    """Change what a link of the cache leads to."""
    path.resolve().write_bytes(data)


@pytest.mark.parametrize("name", sorted(profiles()))
def test_what_a_profile_says_of_its_licence_is_what_the_list_says(name: str) -> None:
    head = profiles()[name].read_text("utf-8").partition("\n\n")[0].lower()
    (licence,) = [piece.licence for piece in pieces(load(name)) if piece.role == "generator"]
    for word in ("apache-2.0", "non-commercial", "gated"):
        assert (word in licence) == (word in head) or not licence, f"{head!r}: {licence!r}"
    assert licence or not re.search("apache|non-commercial|gated", head)


def test_every_packaged_profile_is_listed_and_nothing_is_asked(cache: Path) -> None:
    listed = json.loads(call("list", "--json").stdout)
    assert sorted(listed) == sorted(profiles())
    assert {row["role"] for row in listed["sdxl"]} == {"generator", "adapter", "encoder", "mllm"}
    klein = listed["klein"][0]
    assert klein["model"] == "black-forest-labs/FLUX.2-klein-4B" and klein["licence"] == "apache-2.0"
    assert len(klein["revision"]) == 40 and klein["state"] == "not here"
    assert listed["omnigen"][0]["state"] == "at no commit yet: a pull takes the present one"
    assert listed["sglang"][0]["state"] == "at http://127.0.0.1:30000/v1"
    assert listed["pocket"][0]["state"].startswith("here, ")
    assert "klein\n  generator   black-forest-labs/FLUX.2-klein-4B  e7b7dc27f91d" in call("list").stdout


def test_the_pieces_are_what_the_engines_load(profile: str) -> None:
    from pleinair.app.engines import engine

    settings = load(profile)
    built: Any = engine("generator", settings.generator)
    known = by_role(settings)
    assert known["generator"].source() == built.source
    assert known["adapter"].source() == built.adapter_source
    assert known["generator"].family() == (built.pipeline, built.family)


def test_a_whole_model_is_well(snapshot: Path, profile: str) -> None:
    assert wrong(profile, checksums=True) == []
    done = call("check", profile, "--checksums")
    assert done.exit_code == 0 and f"ok  generator: {OWNER}, here, 2 kB" in done.stdout


@pytest.mark.parametrize("name", ["pocket", "openai"])
def test_the_shipped_models_are_well(name: str) -> None:
    assert wrong(name) == []


def test_a_model_that_is_not_here_says_what_to_do(cache: Path, profile: str) -> None:
    done = call("check", profile)
    assert done.exit_code == 5
    assert "it is not here" in done.stdout and f"`pleinair models pull {profile}`" in done.stdout


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (WEIGHTS, weights(2000)[:-1], f"{WEIGHTS}: 2,0"),
        (WEIGHTS, b"a pickle", f"{WEIGHTS}: no safetensors"),
        (WEIGHTS, b"", f"{WEIGHTS}: no safetensors"),
        ("unet/config.json", b"{", "unet/config.json: Expecting"),
        ("model_index.json", b"{", "is no JSON"),
        ("model_index.json", FLUX, "is a FluxPipeline, not a"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(snapshot: Path, profile: str, name: str, data: bytes, said: str) -> None:
    replace(snapshot / name, data)
    (fault,) = wrong(profile)
    assert said in fault


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "unet: no safetensors weights are here"),
        ("tokenizer/tokenizer_config.json", "tokenizer: no config is here"),
        ("model_index.json", "has no model_index.json"),
    ],
)
def test_a_missing_file_is_named(snapshot: Path, profile: str, gone: str, said: str) -> None:
    (snapshot / gone).unlink()
    (fault,) = wrong(profile)
    assert said in fault
    assert ", incomplete, " in call("check", profile).stdout


def test_a_missing_shard_is_named(snapshot: Path, profile: str) -> None:
    shards = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (snapshot / "unet/model.safetensors.index.json").write_text(json.dumps(shards))
    (snapshot / "unet/one.safetensors").write_bytes(weights())
    assert wrong(profile) == ["unet/two.safetensors: missing"]


def test_an_adapter_is_looked_at_too(snapshot: Path, profile: str, cache: Path) -> None:
    (cache / "models--tests--adapter" / "snapshots" / COMMIT / "models" / "plus.safetensors").unlink()
    assert wrong(profile) == ["models/plus.safetensors: missing"]


def test_changed_bytes_of_the_right_length_are_seen_by_their_checksum(snapshot: Path, profile: str) -> None:
    path = snapshot / "unet/diffusion_pytorch_model.safetensors"
    replace(path, path.read_bytes()[:-1] + b"!")
    replace(snapshot / "tokenizer/merges.txt", b"c d\n")
    assert wrong(profile) == []
    assert sorted(wrong(profile, checksums=True)) == [
        "tokenizer/merges.txt: its bytes are not those of its checksum",
        "unet/diffusion_pytorch_model.safetensors: its bytes are not those of its checksum",
    ]


def test_an_unknown_profile_is_bad_input() -> None:
    for command in ("check", "pull"):
        done = call(command, "nobody")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(("size", "said"), [(999, "999 bytes"), (8_400, "8 kB"), (23_800_000_000, "23.8 GB")])
def test_sizes_in_words(size: int, said: str) -> None:
    assert in_words(size) == said


@pytest.fixture
def hub() -> Iterator[str]:
    """Serve a hub on this machine and give its address."""
    with serving(HUB) as address:
        yield address


def pulled(profile: str, cache: Path, hub: str, *words: str, **environment: str) -> Any:
    """Pull in a process of its own, which reads the hub's address when it starts."""
    asked = {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-c", MAIN, "models", "pull", profile, *words],
        env=os.environ | asked | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_a_pull_tells_before_and_waits_for_a_yes(cache: Path, profile: str, hub: str) -> None:
    done = pulled(profile, cache, hub)
    assert done.returncode == 2, done.stderr
    size = sum(len(tiny()[name]) for name in OPENED)
    told = f"generator: {OWNER} at {COMMIT}, licence mit: {len(OPENED)} files, {in_words(size)}"
    assert told in done.stdout and "--yes" in done.stderr
    assert {line for line in Hub.asked if line.startswith("GET resolve")} <= {"GET resolve model_index.json"}


def test_a_pull_brings_only_what_is_opened_and_what_is_pulled_is_well(
    cache: Path, profile: str, hub: str
) -> None:
    done = pulled(profile, cache, hub, "--yes")
    assert done.returncode == 0, done.stderr
    folder = cache / "models--tests--tiny" / "snapshots" / COMMIT
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == OPENED | {"model_index.json"}
    assert not any("other.safetensors" in line for line in Hub.asked)
    assert wrong(profile, checksums=True) == []
    again = pulled(profile, cache, hub)
    assert again.returncode == 0 and "Nothing was to be downloaded." in again.stdout


def test_a_pull_of_a_variant_brings_no_other_weights(cache: Path, profile: str, hub: str) -> None:
    half = {"PLEINAIR_GENERATOR__VARIANT": "fp16"}
    done = pulled(profile, cache, hub, "--yes", **half)
    assert done.returncode == 0, done.stderr
    folder = cache / "models--tests--tiny" / "snapshots" / COMMIT / "unet"
    assert [path.name for path in folder.glob("*.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    settings = load(profile, {"generator.variant": "fp16"})
    assert not [fault for piece in pieces(settings) for fault in faults(piece)]
    (fault,) = wrong(profile)  # without a variant the first set is looked for
    assert "only diffusion_pytorch_model.fp16.safetensors: generator.variant" in fault


def test_a_pull_mends_what_is_missing(cache: Path, profile: str, hub: str) -> None:
    pulled(profile, cache, hub, "--yes")
    folder = cache / "models--tests--tiny" / "snapshots" / COMMIT
    (folder / "unet/config.json").resolve().unlink()  # its bytes too
    (folder / "unet/config.json").unlink()
    (folder / WEIGHTS).unlink()  # the link only
    assert len(wrong(profile)) == 1
    done = pulled(profile, cache, hub, "--yes")
    assert done.returncode == 0 and f": 1 file, {len(tiny()['unet/config.json'])} bytes" in done.stdout
    assert wrong(profile) == []


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"PLEINAIR_GENERATOR__LOCAL_FILES_ONLY": "true"}]
)
def test_offline_is_honoured(cache: Path, profile: str, hub: str, environment: dict[str, str]) -> None:
    done = pulled(profile, cache, hub, "--yes", **environment)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert "nothing downloaded" in done.stderr and Hub.asked == []


def test_a_model_that_the_hub_does_not_have_is_one_line(cache: Path, profile: str, hub: str) -> None:
    done = pulled(profile, cache, hub, "--yes", PLEINAIR_GENERATOR__MODEL="tests/none")
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert "tests/none" in done.stderr
