"""Look at everything a drawing needs before one is started."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pleinair.app.doctor import engines as checkup
from pleinair.app.doctor.engines import name_of
from pleinair.app.engines import engine, engine_choices, index_folder, library_folder
from pleinair.app.paths import Paths, places
from pleinair.app.runs.results import PARTS, installed
from pleinair.app.runs.store import Runs
from pleinair.app.settings import BackendChoice, Settings, load
from pleinair.tools.registry import Kind
from pleinair.tools.types import PleinairError

FITTING = (
    (
        "second encoder",
        checkup.second_encoder,
        "correct retrieval.second, or set another retrieval.method",
        (),
    ),
    (
        "retriever",
        checkup.retriever,
        "train one for this generator with `pleinair train retriever`",
        ("generator", "encoder"),
    ),
    (
        "adaptor",
        checkup.adaptor,
        "train one with `pleinair train adaptor`, or set crossmodal.adaptor = ''",
        ("encoder",),
    ),
)  # what is looked at, how, what to do, and the engines without which there is nothing to look at
# words by which a fault says itself what to do
ADVICE = re.compile(
    r"`pleinair |\b(set|unset|check|take|choose|wanted|install|see|is the server running)\b", re.I
)
INSTEAD = "choose another {}, or put the model where it looks for it"
RESERVE = 2 * 2**30  # bytes


@dataclass(frozen=True)
class Finding:
    """Say how one thing is, and what to do when it is not well."""

    what: str
    well: bool
    text: str
    remedy: str = ""


def examine(profile: str | None, overrides: Mapping[str, Any], *, mllm: bool = False) -> Iterator[Finding]:
    """Look at each thing in turn, with `mllm` at the model's judgement too; one does not hide the next."""
    yield Finding("versions", True, ", ".join(f"{part} {installed(part)}" for part in PARTS))
    yield _tried("GPU", _gpu, "install a torch build that fits this machine")
    yield _tried("FAISS", _faiss_build, "install pleinair[cpu] or pleinair[gpu]")
    try:
        settings = load(profile, overrides)
    except PleinairError as error:
        yield Finding("settings", False, str(error), "correct that key")
        return
    home = places(settings.paths.home)
    yield Finding("settings", True, f"profile {settings.profile}")
    yield from _engines(settings)
    if mllm:
        yield _tried("critic", lambda: _judgement(settings), "choose a model that sees better")
    yield _tried("library", lambda: _library(settings, home), "pass --set library.folder=FOLDER")
    yield _tried("home", lambda: _writable(home), "set PLEINAIR_HOME to a folder that you may write to")
    yield _tried("run table", lambda: _table(home), "move the file away; its runs are lost with it")
    yield _tried("free disk", lambda: _room(home), "make room, or set PLEINAIR_HOME to another disk")


def _engines(settings: Settings) -> Iterator[Finding]:
    """Look at the engines, and whether they fit each other; what the settings do not name is left out."""
    broken = set()
    for kind, choice in engine_choices(settings).items():
        finding = _advised(_tried(kind, _looks(settings, kind, choice), INSTEAD.format(kind)))
        if not finding.well:
            broken.add(kind)
        yield finding
    yield _tried("model files", lambda: checkup.files(settings), _mending(settings))
    for what, look_at, remedy, needs in FITTING:
        if broken.intersection(needs):
            continue  # told already
        finding = _tried(what, partial(look_at, settings), remedy)
        if finding.text:
            yield finding


def _looks(settings: Settings, kind: Kind, choice: BackendChoice) -> Callable[[], str]:
    """Give the way to look at an engine of a kind."""
    if kind == "generator":
        return partial(checkup.generator, settings)
    return partial(checkup.encoder, choice) if kind == "encoder" else partial(name_of, kind, choice)


def _advised(finding: Finding) -> Finding:
    """Leave the usual remedy out where the fault names a better one."""
    text = finding.text.removeprefix(f"{finding.what}: ")
    return replace(finding, text=text, remedy="" if ADVICE.search(text) else finding.remedy)


def _mending(settings: Settings) -> str:
    """Say what brings the files of a profile's models."""
    from huggingface_hub import constants

    offline = ", once HF_HUB_OFFLINE is unset" if constants.HF_HUB_OFFLINE else ""
    name = settings.profile
    return f"`pleinair models check {name}` tells more, `pleinair models pull {name}` fetches some{offline}"


def _tried(what: str, look: Callable[[], str], remedy: str) -> Finding:
    """Look at one thing; what it says when it breaks is the finding."""
    try:
        return Finding(what, True, look())
    except (PleinairError, ImportError, OSError) as error:
        return Finding(what, False, str(error), remedy)
    except Exception as error:  # a library's own fault, or ours; it must not hide the next finding
        return Finding(what, False, f"{type(error).__name__}: {error}", remedy)


def _gpu() -> str:
    """Name the GPU; a machine without one is well too."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "none, drawing on the CPU"


def _faiss_build() -> str:
    """Say which FAISS is there."""
    import faiss

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return f"{faiss.__version__}, {gpus} GPUs"


def _judgement(settings: Settings) -> str:
    """Let the language model judge pictures of which the truth is known."""
    from pleinair.app.doctor.critic_test import accept

    return accept(engine("mllm", settings.mllm))


def _library(settings: Settings, home: Paths) -> str:
    """Count the library's pictures and say whether it is indexed."""
    from pleinair.tools.retrieval.library import Library

    found = Library.open(library_folder(settings, home))
    indexed = "indexed" if index_folder(settings, home).is_dir() else "indexed at the first look-up"
    return f"{len(found.items)} pictures in {found.folder}, {indexed}"


def _writable(home: Paths) -> str:
    """Check that the home folder can be written to."""
    home.home.mkdir(parents=True, exist_ok=True)
    if not os.access(home.home, os.W_OK):
        raise PleinairError(f"{home.home} is not writable")
    return str(home.home)


def _table(home: Paths) -> str:
    """Check that the run table opens."""
    return f"{len(Runs(home.table).newest(1000))} runs"


def _room(home: Paths) -> str:
    """Check that there is room for pictures."""
    free = shutil.disk_usage(home.home).free
    if free < RESERVE:
        raise PleinairError(f"{free / 2**30:.1f} GiB, wanted {RESERVE / 2**30:.0f} GiB")
    return f"{free / 2**30:.0f} GiB"
