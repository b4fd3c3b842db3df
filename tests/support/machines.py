"""Machines of a cluster: folders of this one, with settings and homes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = [sys.executable, "-c", "from pleinair.app.cli.main import console; console()"]
PROCESS = 'profile = "pocket"\n'
MACHINE = """
profile = "pocket"

[cluster]
workers = true
"""
CLUSTER = """
profile = "pocket"

[cluster]
workers = true
database = "{database}"
objects = "s3://{bucket}/runs"
ray = "{ray}"

[ray_serve.generator]
num_cpus = 0.5

[ray_serve.encoder]
num_cpus = 0.5
"""


class Machine:
    """Folder with the settings, home and results of one machine; only its name and settings are its own."""

    def __init__(self, folder: Path, settings: str, environment: dict[str, str]) -> None:
        (folder / "config" / "pleinair").mkdir(parents=True)
        (folder / "config" / "pleinair" / "pleinair.toml").write_text(settings, encoding="utf-8")
        self.folder = folder
        others = {name: value for name, value in os.environ.items() if not name.startswith("PLEINAIR_")}
        own = {"XDG_CONFIG_HOME": str(folder / "config"), "PLEINAIR_HOME": str(folder / "home")}
        self.environment = others | own | environment | {"PLEINAIR_PATHS__OUT": str(folder / "out")}

    def call(self, *command: str) -> str:
        """Run a command and return what it prints."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run a worker here for the block."""
        process = subprocess.Popen([*PROGRAM, "worker"], cwd=self.folder, env=self.environment)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
