"""Checks of everything that a run needs: each reports what is wrong and what to do about it.

No weights of a generator are loaded, and no image is paid for: files are judged by configs and headers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pleinair.app.doctor.critic_test import accept
from pleinair.app.engines import (
    backend_choices,
    build_backend,
    build_encoder,
    build_generator,
    sampling_capabilities,
    with_second,
)
from pleinair.app.libraries import index_fault, index_folder, library_changes, open_library
from pleinair.app.models.inventory import ProfileModel, encoder_model, find_faults, is_absent, local_models
from pleinair.app.paths import Paths
from pleinair.app.runs.presence import workers_of
from pleinair.app.runs.prices import calls_server, server_addresses
from pleinair.app.runs.results import PARTS, installed
from pleinair.app.runs.store import Runs
from pleinair.app.settings import BackendChoice, Settings, home_of, load
from pleinair.app.texts import counted
from pleinair.tools.callbacks import no_callback
from pleinair.tools.http.support import SUPPORT
from pleinair.tools.realrag import require_generator, training_of
from pleinair.tools.registry import Kind
from pleinair.tools.storage.files import require_writable
from pleinair.tools.storage.postgres import without_password
from pleinair.tools.types import BadInput, PleinairError
from pleinair.tools.worker.worker import Worker

if TYPE_CHECKING:
    from PIL.Image import Image

RESERVE = 2 * 2**30  # bytes
_IN_PROCESS = ", in this process: no server is asked"  # of a language model


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    text: str
    remedy: str = ""


Report = Callable[[str], None]  # receives what is being checked, where that takes seconds


def examine(
    profile: str | None, overrides: Mapping[str, Any], *, mllm: bool = False, report: Report = no_callback
) -> Iterator[Finding]:
    """Run each check in turn.

    A language model on a server is asked one small question. With `mllm` it is tried what its server takes,
    which is remembered, and the model judges images; both may cost money.
    """
    yield Finding("versions", True, ", ".join(f"{part} {installed(part)}" for part in PARTS))
    report("loading libraries")
    yield _check("GPU", _gpu, "Install a torch build that fits this machine.")
    yield _check("FAISS", _faiss_build, "Install pleinair[cpu] or pleinair[gpu].")
    try:
        settings = load(profile, overrides)
    except PleinairError as error:
        yield Finding("settings", False, error.message, error.remedy or "Correct that key.")
        return
    home = home_of(settings)
    yield Finding("settings", True, f"profile {settings.profile}")
    SUPPORT.open(home.cache / "servers")
    yield from _engines(settings, report)
    if mllm:
        yield from _critic(settings, report)
    yield _check("library", lambda: _library(settings, home), "Pass --set library.folder=FOLDER.")
    yield _check("home", lambda: _writable(home), "Set PLEINAIR_HOME to a folder that you may write to.")
    yield _check(
        "run table",
        lambda: _run_table(home),
        "Correct cluster.database, or start its server."
        if home.database
        else "Keep the file; `pleinair runs list` shows what can be read.",
    )
    if home.objects:
        remedy = "Correct cluster.objects, or the credentials in the environment."
        yield _check("object storage", lambda: _object_storage(home), remedy)
    yield _check("free disk", lambda: _free_disk(home), "Make room, or set PLEINAIR_HOME to another disk.")


def _run_table(home: Paths) -> str:
    """Return the number of runs, and of the workers that a shared database has."""
    runs = f"{len(Runs(home.table).newest(1000))} runs"
    if not home.database:
        return runs
    return f"{runs} in {without_password(home.database)}, {counted(len(workers_of(home)), 'worker')}"


def _check(name: str, look: Callable[[], str], remedy: str) -> Finding:
    """Run one check; the error's own remedy comes before the usual one of the check."""
    try:
        return Finding(name, True, look())
    except PleinairError as error:
        return Finding(name, False, error.message, error.remedy or remedy)
    except (ImportError, OSError) as error:
        return Finding(name, False, str(error), remedy)
    except Exception as error:  # a library's own fault, or ours; it must not hide the next finding
        return Finding(name, False, f"{type(error).__name__}: {error}", remedy)


def _critic(settings: Settings, report: Report) -> Iterator[Finding]:
    """Try what the language model's server takes, and test the model as a critic."""

    def explore(choice: BackendChoice) -> str:
        model = build_backend("mllm", choice)
        if not (explore := getattr(model, "explore", None)):
            return "none, the language model runs in this process"
        return str(explore(lambda text: report(f"server: trying {text}")))

    def judge() -> str:
        return accept(build_backend("mllm", settings.mllm), lambda text: report(f"critic: {text}"))

    for name, choice in _by_server("server", settings.mllm):
        yield _check(name, partial(explore, choice), "Check the table [mllm] of the profile.")
    yield _check("critic", judge, "Choose another language model.")


def _engines(settings: Settings, report: Report) -> Iterator[Finding]:
    """Check the engines, and whether they fit each other; what the settings do not name is left out."""
    broken = set()
    for kind, choice in backend_choices(settings).items():
        for name, single in _by_server(kind, choice):
            report(f"{name} {choice.label}")
            engine = partial(_engine, kind, settings.model_copy(update={kind: single}))
            finding = _check(name, engine, f"Check the table [{kind}] of the profile.")
            if not finding.ok:
                broken.add(kind)
            yield finding
    yield _check("model files", lambda: _model_files(settings), _pull(settings))
    fits = (
        ("second encoder", _second_encoder, "Correct retrieval.second, or set another retrieval.method.", ""),
        ("retriever", _retriever, "Run `pleinair train retriever`.", "generator encoder"),
        ("adaptor", _adaptor, "Run `pleinair train adaptor`, or unset crossmodal.adaptor.", "encoder"),
    )
    for name, look, remedy, needs in fits:
        if broken.isdisjoint(needs.split()):  # otherwise the fault has been reported above
            finding = _check(name, partial(look, settings), remedy)
            if finding.text:
                yield finding


def _engine(kind: Kind, settings: Settings) -> str:
    if kind == "encoder":
        return _encoder(settings)
    if kind == "generator":
        return _id_of(build_generator(settings), settings.generator)
    return _id_of(build_backend("mllm", settings.mllm), settings.mllm, _IN_PROCESS)


def _by_server(name: str, choice: BackendChoice) -> Iterator[tuple[str, BackendChoice]]:
    """Yield a check's name and the backend; of a list of servers, those of each server."""
    texts = choice.arguments.get("base_url")
    try:
        is_list = calls_server(choice) and not isinstance(texts, str) and len(server_addresses(choice)) > 1
    except BadInput:  # which the check of the backend reports
        is_list = False
    if not texts or not is_list:
        yield name, choice
        return
    for number, text in enumerate(texts, start=1):
        single = {**choice.arguments, "backend": choice.backend, "base_url": text}
        yield f"{name} {number} of {len(texts)}", BackendChoice.model_validate(single)


def _pull(settings: Settings) -> str:
    from huggingface_hub import constants

    offline = ", once HF_HUB_OFFLINE is unset" if constants.HF_HUB_OFFLINE else ""
    name = settings.profile
    return f"`pleinair models check {name}` tells more, `pleinair models pull {name}` fetches some{offline}."


def _id_of(part: object, choice: BackendChoice, addition: str = "") -> str:
    """Return a part's id: a worker's from a new process, a server's from there, else with the addition."""
    if isinstance(part, Worker):
        part.close()  # a process of an earlier run would answer for the files of then
        try:
            return f"{part.greet()}, in a process of its own"
        finally:
            part.close()
    if greet := getattr(part, "greet", None):
        return str(greet())
    return str(getattr(getattr(part, "capabilities", part), "id", None) or choice.backend) + addition


def _model_files(settings: Settings) -> str:
    """Check the files of the models of this machine; raise `PleinairError` with the first fault of each."""
    faults = [(model, _first_fault(model)) for model in local_models(settings)]
    if broken := [f"{model.role} {model.model}: {fault}" for model, fault in faults if fault]:
        raise PleinairError("; ".join(broken))
    return "whole, as far as they are known"


def _first_fault(model: ProfileModel) -> str:
    """Return the first fault of a model's files and the number of the others; "" where there is none."""
    if model.on_hub and not model.revision:
        return "no commit is set"
    texts = [fault.rstrip(".") for fault in find_faults(model)]
    return texts[0] + f" (and {len(texts) - 1} more)" * (len(texts) > 1) if texts else ""


def _encoder(settings: Settings) -> str:
    """Build the encoder and return its id; nothing is downloaded for it."""
    model = encoder_model(settings.encoder)
    if model.on_hub and is_absent(model) and not settings.ray_serve.encoder:
        raise PleinairError(f"{settings.encoder.label} is not here", "See the model files below.")
    return _id_of(build_encoder(settings), settings.encoder)


def _second_encoder(settings: Settings) -> str:
    """Build the other encoder of retrieval.method = "both"; "" where there is none."""
    retrieval = settings.retrieval
    if retrieval.second:
        return _encoder(with_second(settings, retrieval.second))
    if retrieval.method == "both":
        raise BadInput("retrieval.method = 'both' needs another encoder too, in the table retrieval.second")
    return ""


def _retriever(settings: Settings) -> str:
    """Check that a trained retriever is this generator's; "" for an untrained one."""
    training = training_of(build_encoder(settings))
    if training is None:
        return ""
    if not training.is_free:
        require_generator(training, sampling_capabilities(settings), settings.image.negative_prompt or "")
    whose = "any generator" if training.is_free else "this generator"
    return f"trained with the {training.loss} loss, for {whose}"


def _adaptor(settings: Settings) -> str:
    """Open the adaptor and check that it is this encoder's; "" where the settings name none."""
    from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer

    if not (folder := settings.crossmodal.adaptor):
        return ""
    open_scorer(folder, build_encoder(settings), _no_image)
    return f"{folder}, for this encoder"


def _no_image(id: str) -> Image:
    raise AssertionError(f"an adaptor is opened without its images, such as {id!r}")


def _gpu() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "none, on the CPU"


def _faiss_build() -> str:
    import faiss

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return f"{faiss.__version__}, {gpus} GPUs"


def _library(settings: Settings, home: Paths) -> str:
    from pleinair.tools.retrieval.conditions import count_met, explain_empty
    from pleinair.tools.retrieval.manifest import FILE, verify_files

    library, folder = open_library(settings, home), index_folder(settings, home)
    indexed = "indexed at the first retrieval"
    if index_fault(folder):
        indexed = "its index is built anew at the first retrieval"
    elif (folder / FILE).is_file():
        indexed = f"indexed, {verify_files(folder):,} bytes have their checksums"
        if changes := library_changes(settings, home):
            indexed += f"; since then {changes.summary}"
    if conditions := settings.retrieval.conditions:
        catalogue = library.as_catalogue()
        if empty := explain_empty(catalogue, conditions):
            raise empty
        indexed += f"; {count_met(catalogue, conditions):,} meet the conditions on retrieval"
    return f"{counted(len(library.items), 'image')} in {library.title}, {indexed}"


def _writable(home: Paths) -> str:
    require_writable(home.home)
    return str(home.home)


def _object_storage(home: Paths) -> str:
    home.require_objects()
    return f"{home.objects} can be written to"


def _free_disk(home: Paths) -> str:
    free = shutil.disk_usage(next(place for place in (home.home, *home.home.parents) if place.is_dir())).free
    if free < RESERVE:
        raise PleinairError(f"{free / 2**30:.1f} GiB, at least {RESERVE / 2**30:.0f} GiB are needed")
    return f"{free / 2**30:.0f} GiB"
