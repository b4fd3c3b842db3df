"""The path of a prompt from the command line to the pipeline is short, and validates the prompt once."""

import re
import subprocess
import sys
from pathlib import Path

MOST_FILES = 16  # two read the options in the prompt, one asks for approval, one is the row of the run table


def test_the_path_of_a_prompt_is_short() -> None:
    command = [sys.executable, "-m", "tests.support.prompt_path"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    report = re.search(r"^path: .*?\n((?: {2}.*\n)*)", done.stdout, re.MULTILINE)
    assert report, done.stdout
    files = re.findall(r"^ {2}(\S+):", report[1], re.MULTILINE)
    assert files[0] == "app/cli/draw.py"
    assert "tools/diffusion/engine.py" in files
    assert len(files) <= MOST_FILES, report[1]
    assert "validations of the prompt: 1\n" in done.stdout
