"""`pleinair index --shard` and `--merge` as a user meets them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import quick_engines as quick
from typer.testing import CliRunner

from pleinair.app.cli.main import app


@pytest.fixture
def library(place: Path) -> Path:
    """Return a library of two blocks of 64 images, which shares do not cut."""
    for number in range(6, 128):
        image = quick.speckled(quick.SIZE, quick.colour(f"library {number}"))
        image.save(place / "library" / f"x{number:03}.png")
    return place / "library"


def run(*arguments: object) -> list[str]:
    result = CliRunner().invoke(app, ["index", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def refusal(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["index", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def manifests(home: Path) -> list[str]:
    return [path.read_text("utf-8") for path in sorted(home.rglob("manifest.json"))]


def test_shares_in_a_folder_are_merged_in_another_home(
    place: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place / "out"
    (library / "damaged.png").write_bytes(b"no image")
    lines = [run(library, "--shard", f"{number}/2", "--out", out) for number in (1, 2)]
    assert [line[0].split(" of 129 images")[0] for line in lines] == [
        "Shard 1/2 is finished: vectors of 63",
        "Shard 2/2 is finished: vectors of 65",
    ]
    assert [" cannot be used" in line[0] for line in lines] == [True, False]
    assert (
        lines[0][1] == f"`pleinair index {library} --merge {out}` joins all 2 shards when they are finished"
    )
    assert not manifests(place)
    monkeypatch.setenv("PLEINAIR_HOME", str(place / "merged"))
    lines = [run(library, "--merge", out), run(library, "--merge", out)]
    assert [line[0] for line in lines] == ["129 of 129 images have vectors"] * 2
    assert lines[0][1] == f"128 images of {library} are indexed under hashes; 1 cannot be used"
    monkeypatch.setenv("PLEINAIR_HOME", str(place / "one"))
    run(library)
    assert manifests(place / "merged") == manifests(place / "one")
    assert list(out.glob("*.npz"))


def test_missing_images_are_counted_and_embedded(place: Path, library: Path) -> None:
    out = place / "out"
    run(library, "--shard", "1/2", "--out", out)
    shutil.copy(library / "1.png", library / "new.png")
    lines = run(library, "--merge", out)
    assert lines[:2] == [
        "64 of 129 images have vectors; embedding the other 65",
        f"129 images of {library} are indexed under hashes",
    ]
    assert run(library, "--merge", out)[0] == "129 of 129 images have vectors"


def test_without_a_folder_the_next_index_run_joins_the_shares(place: Path, library: Path) -> None:
    lines = [run("--shard", f"{number}/2")[1] for number in (1, 2)]
    assert lines[0].startswith(f"`pleinair index {library}` joins all 2 shards")
    shards = [path.parent for path in (place / "home").rglob("*.npz")]
    assert len(shards) == 2
    run()
    assert manifests(place) and not list(shards[0].glob("*.npz"))


def test_bad_options_are_refused_before_anything_is_written(place: Path) -> None:
    library, out, home = place / "library", place / "out", place / "home"
    refusals = {
        ("--shard", "3/2"): "--shard '3/2': accepted: I/N",
        ("--shard", "1/2", "--merge", out): "--shard only embeds, so it takes no --calibrate",
        ("--out", out): "needs --shard I/N",
        ("--verify", "--merge", out): "--verify changes nothing",
        ("--shard", "1/2", "--out", library / "1.png"): "it is a file; must be a folder",
        ("--merge", out): f"{out}: no such folder",
        ("--merge", library): f"{library}: no shards in it",
    }
    for arguments, reason in refusals.items():
        assert reason in refusal(library, *arguments)
    assert not out.exists()
    assert not list(home.rglob("manifest.json")) + list(place.rglob("*.npz"))
