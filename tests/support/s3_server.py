"""Real S3 server for tests, in an environment of its own, with one bucket and one user."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

LOCK = Path(__file__).parents[1] / "outside" / "moto.lock"
PROGRAM = Path(__file__).with_name("s3_program.py")
BUCKET = "pleinair"


@dataclass
class S3Server:
    """Server that accepts the credentials of one user."""

    process: subprocess.Popen[str]
    address: str
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which a client reaches the server."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def stop(self) -> None:
        """Close the port: connections are refused; the objects stay."""
        self._command("stop")

    def start(self) -> None:
        """Open the port again."""
        self._command("start")

    def requests(self) -> dict[str, int]:
        """Return how many requests there were so far, by their method."""
        return self._command("count")

    def _command(self, word: str) -> dict[str, int]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        counts: dict[str, int] = json.loads(self.process.stdout.readline())
        return counts


def installed() -> Path:
    """Install the server once beside the packages that run the tests, and return its Python."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = Path(sys.prefix) / f"moto-{digest}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
            subprocess.run([*pip, "install", "--no-deps", "--requirement", str(LOCK)], check=True)
            (folder / "installed").touch()
    return folder / "bin" / "python"


@contextmanager
def s3_server(bucket: str = BUCKET) -> Iterator[S3Server]:
    """Yield a server with an empty bucket, and end it by its process."""
    python = installed()
    process = subprocess.Popen(
        [str(python), str(PROGRAM), bucket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield S3Server(process, **json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()
