"""Help texts of the commands that the documents name, and what of a command they lack."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import takewhile

MAIN = "from pleinair.app.cli.main import main; main()"
GROUPS = ("cluster", "library", "models", "runs", "trace", "train")  # commands with commands of their own


def program(words: list[str]) -> tuple[list[str], list[str]]:
    """Split a command into what runs here and its arguments."""
    if words[0] == "pleinair":
        return [sys.executable, "-c", MAIN], words[1:]
    assert words[:2] == ["python", "-m"], f"not a command of ours: {words}"
    return [sys.executable, *words[1:3]], words[3:]


@cache
def help_of(*command: str) -> str:
    """Give the help text of a command; fail where it has none."""
    answer = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def lacking(line: str) -> list[str]:
    """List the options of a command that its help does not have; fail where there is no such command."""
    start, arguments = program(shlex.split(line, comments=True))
    names = list(takewhile(lambda word: not word.startswith("-"), arguments))
    text = help_of(*start, *names[: 2 if names[:1] and names[0] in GROUPS else 1])
    options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    return [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)]
