"""Detection of what this machine has, and the profile that fits it; `pleinair setup` writes and tries it.

Chat servers are found by their usual addresses on this machine only: those of `profiles/servers`. Not
covered: whether a model judges images well, which `pleinair doctor --mllm` measures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
import tomlkit
from platformdirs import user_config_path, user_pictures_path

from pleinair.app.settings import POCKET, chat_servers
from pleinair.app.toml.trees import Tree, read_toml
from pleinair.tools.http.transport import CallLimits, http_client, limited
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, PleinairError, Value

_TIMEOUT = 3.0  # seconds for one question to a server
_MAX_MODELS = 40  # of a server, that are checked for whether they accept images
_GENERATORS = (("klein", 11.0), ("sdxl", 7.0), ("sd15", 4.0))  # GiB of GPU memory, with offload of parts
_SEEING = re.compile(
    r"vl\b|vl[-:.\d]|vision|visual|llava|pixtral|moondream|minicpm-?[vo]|internvl|gemma-?[3-9]|llama-?4|"
    r"mistral-small-?3\.[1-9]|ministral-3|magistral|molmo|smolvlm|glm-?\d(\.\d)?v|omni|qwen-?3\.[5-9]|qwen-?[4-9]",
    re.IGNORECASE,
)


class ChatServer(Value):
    """A running OpenAI-compatible server and its models that accept images."""

    name: str  # of its file in profiles/servers
    base_url: str
    models: tuple[str, ...]
    seeing: tuple[str, ...]  # those that accept images
    certain: bool  # the server says so; otherwise it is a guess from the models' names


class Machine(Value):
    """What was detected."""

    gpu: str = ""
    gpu_memory: float = 0.0  # GiB, of the largest GPU
    memory: float  # GiB
    servers: tuple[ChatServer, ...] = ()
    key: bool = False  # OPENAI_API_KEY is set
    library: str = ""  # the user's folder of images, if it has any

    def parts(self) -> list[tuple[str, str]]:
        """Return what is reported, each part with its label."""
        gpu = f"{self.gpu}, {self.gpu_memory:.0f} GiB" if self.gpu else "none"
        servers = [f"{server.name} at {server.base_url}, {_models(server)}" for server in self.servers]
        return [
            ("GPU", gpu),
            ("memory", f"{self.memory:.0f} GiB"),
            *(("chat server", text) for text in servers or ["none is running on this machine"]),
            ("key", f"OPENAI_API_KEY is {'set' if self.key else 'not set'}"),
            ("images", self.library or "no folder of images"),
        ]


class Proposal(Value):
    """A profile with the keys that differ from it, and why."""

    profile: str
    overrides: Tree = {}
    reasons: tuple[str, ...]


def _models(server: ChatServer) -> str:
    if not server.seeing:
        return "no model that accepts images"
    guess = "" if server.certain else ", by their names"
    return f"models that accept images{guess}: {', '.join(server.seeing[:5])}"


def inspect_machine(addresses: Mapping[str, str] | None = None) -> Machine:
    """Detect the GPU, the memory, chat servers, a key and the user's folder of images; takes seconds.

    `addresses` are base URLs of chat servers by name, by default those of `profiles/servers`.
    """
    import psutil

    gpu, gpu_memory = _largest_gpu()
    tables: dict[str, Tree] = {name: read_toml(path)["mllm"] for name, path in chat_servers().items()}
    addresses = addresses or {name: str(table["base_url"]) for name, table in tables.items()}
    servers = (_server_at(name, url, tables.get(name, {}).get("model")) for name, url in addresses.items())
    folder = user_pictures_path()
    return Machine(
        gpu=gpu,
        gpu_memory=gpu_memory,
        memory=psutil.virtual_memory().total / 2**30,
        servers=tuple(server for server in servers if server),
        key=bool(os.environ.get("OPENAI_API_KEY")),
        library=str(folder) if folder.is_dir() and any(folder.iterdir()) else "",
    )


def propose(machine: Machine, library: str = "", profile: str = "") -> Proposal:
    """Choose a generator that fits the GPU and a model that can judge its images.

    The miniature profile `pocket` is proposed where either is missing, with what is missing as reasons.
    `library` and `profile` are the user's own choices.
    """
    profile, reasons = (profile, ("as set by --profile",)) if profile else _fitting(machine)
    folder = library or machine.library
    overrides: Tree = {}
    if folder and (library or profile != POCKET):
        overrides["library"] = {"folder": str(Path(folder).expanduser().absolute())}
    for server in machine.servers:
        if server.seeing and profile.endswith(f"+{server.name}"):
            overrides["mllm"] = {"model": server.seeing[0]}
    return Proposal(profile=profile, overrides=overrides, reasons=reasons)


def _fitting(machine: Machine) -> tuple[str, tuple[str, ...]]:
    generator = next((name for name, need in _GENERATORS if machine.gpu_memory >= need), "")
    server = next((server for server in machine.servers if server.seeing), None)
    fits = f"{generator} fits into {machine.gpu_memory:.0f} GiB of GPU memory"
    if generator and server:
        return f"{generator}+{server.name}", (fits, f"{server.name} serves {server.seeing[0]}")
    if generator and machine.key:
        return generator, (fits, "OPENAI_API_KEY is set: a hosted model judges the images")
    if machine.key:
        hosted = "OPENAI_API_KEY is set: both models are hosted, and each image costs money"
        local = (f"{server.name} could judge the images: gpt_image+{server.name}",) if server else ()
        return "gpt_image", (hosted, *local)
    return POCKET, _missing(generator, server)


def _missing(generator: str, server: ChatServer | None) -> tuple[str, ...]:
    """Return what is missing for images of the real world."""
    reasons = ["the miniature models run anywhere, and know only their miniature world"]
    if not generator:
        reasons.append("for photographs: a GPU of 4 GiB or more, or OPENAI_API_KEY for a hosted generator")
    if not server:
        reasons.append(
            "for photographs: a chat server whose model accepts images, such as Ollama (`ollama pull "
            "qwen3-vl:8b`), or OPENAI_API_KEY"
        )
    return tuple(reasons)


def settings_path() -> Path:
    """Return the user's settings file."""
    return user_config_path("pleinair") / "pleinair.toml"


def settings_text(proposal: Proposal, path: Path) -> str:
    """Return the user's settings file with the proposal in it; its other keys and comments stay.

    Raises:
        BadInput: the file is not TOML.
    """
    try:
        document = tomlkit.parse(path.read_text("utf-8")) if path.is_file() else tomlkit.document()
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: invalid TOML: {error}", "Correct the file or move it away.") from error
    if not path.is_file():
        document.add(tomlkit.comment("Written by `pleinair setup`; docs/settings.md lists every key."))
    document["profile"] = proposal.profile
    for name, table in proposal.overrides.items():
        if name not in document:
            document[name] = tomlkit.table()
        for key, value in table.items():
            document[name][key] = value
    return tomlkit.dumps(document)


def write_settings(path: Path, text: str) -> None:
    """Write the settings file as a whole; a former one is kept beside it as pleinair.toml.bak."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        write_whole(path.with_suffix(".toml.bak"), path.read_bytes())
    write_whole(path, text.encode())


def _largest_gpu() -> tuple[str, float]:
    """Return the name and GiB of the largest GPU; on a Mac, two thirds of the shared memory."""
    import psutil
    import torch

    if torch.backends.mps.is_available():
        return "Apple GPU", psutil.virtual_memory().total / 2**30 * 2 / 3
    if not torch.cuda.is_available():
        return "", 0.0
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    largest = max(devices, key=lambda device: device.total_memory)
    return str(largest.name), largest.total_memory / 2**30


def _server_at(name: str, base_url: str, usual: str | None) -> ChatServer | None:
    """Return the server at an address, its `usual` model first; None if nothing there lists models."""
    models = [str(row["id"]) for row in _rows(_answer("GET", f"{base_url}/models")) if "id" in row]
    if not models:
        return None
    root = base_url.removesuffix("/v1")
    seeing = _seeing(name, root, models[:_MAX_MODELS])
    certain = seeing is not None
    if seeing is None:
        seeing = [model for model in models if _SEEING.search(model)]
    seeing.sort(key=lambda model: model != usual)
    return ChatServer(
        name=name, base_url=base_url, models=tuple(models), seeing=tuple(seeing), certain=certain
    )


def _seeing(name: str, root: str, models: Sequence[str]) -> list[str] | None:
    """Return the models that accept images as the server's own interface says; None if it does not say."""
    if name == "ollama":
        shown = {model: _answer("POST", f"{root}/api/show", {"model": model}) for model in models}
        if any("capabilities" in page for page in shown.values()):
            return [model for model, page in shown.items() if "vision" in (page.get("capabilities") or ())]
    if name == "llama_cpp":
        modalities = _answer("GET", f"{root}/props").get("modalities")
        if isinstance(modalities, dict):
            return list(models) if modalities.get("vision") else []
    if name == "lm_studio" and (rows := _rows(_answer("GET", f"{root}/api/v0/models"))):
        kinds = {str(row.get("id")): row.get("type") for row in rows}
        return [model for model in models if kinds.get(model) == "vlm"]
    return None


def _rows(page: Tree) -> list[Tree]:
    rows = page.get("data")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _answer(method: str, url: str, body: Tree | None = None) -> dict[str, Any]:
    """Return the JSON object that a server on this machine answers; empty where there is none."""
    end = monotonic() + _TIMEOUT
    try:
        with limited(CallLimits(lambda: end - monotonic())), http_client() as client:
            reply = client.request(method, url, json=body)
            answer = reply.json() if reply.is_success else {}
    except (httpx2.HTTPError, httpx2.InvalidURL, PleinairError, ValueError, RecursionError):
        return {}  # whatever else listens there is no chat server
    return answer if isinstance(answer, dict) else {}
