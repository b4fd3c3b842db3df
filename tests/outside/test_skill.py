"""The commands of the skill file, in their order, as an agent types them in a fresh home."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from pleinair.app.skill.skill import skill_text
from pleinair.tools.pocket.catalogue.library import cached_library

EXIT_CODE = re.compile(r"# exit code (\d)")  # behind a command whose code is another than 0


def write_pictures(folder: Path, cache: Path) -> None:
    """Write a library of images with captions, among them the species that the commands draw."""
    library = cached_library(cache)
    lines = (library / "metadata.jsonl").read_text("utf-8").splitlines()
    shown = [line for line in lines if "hoopoe" in line][:5] + lines[:25]
    for line in dict.fromkeys(shown):
        name = json.loads(line)["file_name"]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((library / name).read_bytes())
    (folder / "metadata.jsonl").write_text("\n".join(dict.fromkeys(shown)), encoding="utf-8")


def test_every_command_works(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    write_pictures(home / "pictures", tmp_path / "cache")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PLEINAIR_", "XDG_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    blocks = re.findall(r"^```sh\n(.*?)^```$", skill_text(), re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) > 15
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=work,
            env=env | {"HOME": str(home), "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        wanted = EXIT_CODE.search(command)
        assert done.returncode == (int(wanted[1]) if wanted else 0), f"{command}: {done.stderr}"
        if " --json" in command:
            json.loads(done.stdout)
    files = {path.name for path in work.iterdir()}
    assert {"images", "batch", "prompts.txt", "storyboard.html", "storyboard.png", "trace.json"} <= files
    assert {"outcomes.jsonl", "index.html", "contact.png"} < {
        path.name for path in (work / "batch").iterdir()
    }
