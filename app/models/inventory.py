"""The models that a profile needs: what they are, where they come from, and whether their files are here.

A check reads configs and the headers of the weights, and with `checksums` every byte that the hub's cache has
a sum for; nothing is loaded. Not covered: models behind a server, engines of third parties, and what a class
of diffusers makes of a config.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.diffusion.controlnet import branch_files
from pleinair.tools.diffusion.families import CONTROLNET, IN_CONTEXT, IP_ADAPTER, TEXT_ONLY, Family, family_of
from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.diffusion.ip_adapter import IpAdapter, adapter_files, encoder_folder
from pleinair.tools.diffusion.loading import read_index, require_class
from pleinair.tools.model_files.hub import Source
from pleinair.tools.model_files.integrity import changed, of_part, whole
from pleinair.tools.model_files.open_clip import FILES as CLIP_FILES
from pleinair.tools.model_files.open_clip import LOCAL, WEIGHTS, hub_id, known, label
from pleinair.tools.model_files.variants import Files, pipeline_files
from pleinair.tools.types import BadInput

Kind = Literal["pipeline", "adapter", "controlnet", "open_clip", "elsewhere"]

FAMILIES = {
    "in_context": IN_CONTEXT,
    "ip_adapter": IP_ADAPTER,
    "controlnet": CONTROLNET,
    "text_only": TEXT_ONLY,
}
LICENCES = {  # as their pages named them; a pull asks the hub
    "InstantX/FLUX.1-dev-Controlnet-Union": "non-commercial",
    "Qwen/Qwen-Image-Edit-2509": "apache-2.0",
    "black-forest-labs/FLUX.1-Kontext-dev": "non-commercial, gated",
    "black-forest-labs/FLUX.1-dev": "non-commercial, gated",
    "black-forest-labs/FLUX.1-schnell": "apache-2.0",
    "black-forest-labs/FLUX.2-dev": "non-commercial, gated",
    "black-forest-labs/FLUX.2-klein-4B": "apache-2.0",
    "black-forest-labs/FLUX.2-klein-9b-kv": "non-commercial, gated",
    "h94/IP-Adapter": "apache-2.0",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "mit",
    "stabilityai/stable-diffusion-3-medium-diffusers": "stability ai community, gated",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "xinsir/controlnet-tile-sdxl-1.0": "apache-2.0",
}


@dataclass(frozen=True)
class Piece:
    """Name one model of a profile: in a folder, on the hub, or elsewhere."""

    role: str
    kind: Kind
    table: dict[str, Any]
    prefix: str = ""  # of its keys in the table
    where: str = ""  # of one that is elsewhere
    kept_as: str = ""  # its name among the kept commits, where that is not the hub id

    @property
    def model(self) -> str:
        """Give the hub id or the folder."""
        return str(self.table.get(f"{self.prefix}model") or self.table.get(f"{self.prefix}folder") or "")

    @property
    def on_hub(self) -> bool:
        """Tell whether it comes from the hub."""
        return self.kind != "elsewhere" and not self.table.get(f"{self.prefix}folder")

    @property
    def revision(self) -> str:
        """Give the commit, or what stands for one."""
        return str(self.table.get(f"{self.prefix}revision", "")) if self.on_hub else ""

    @property
    def variant(self) -> str:
        """Name the set of weights that is loaded, where there are several."""
        return str(self.table.get("variant", ""))

    @property
    def licence(self) -> str:
        """Give its licence where it is known."""
        return LICENCES.get(self.model, "") if self.on_hub else ""

    def source(self) -> Source:
        """Give where its files are; raises `BadInput` where no commit is set."""
        given = {name: str(self.table.get(f"{self.prefix}{name}", "")) for name in ("folder", "revision")}
        return Source(
            model=self.model if self.on_hub else "",
            allow_branch=bool(self.table.get("allow_branch")),
            local_files_only=bool(self.table.get("local_files_only")),
            key=self.prefix,
            **given,
        )

    def family(self) -> tuple[str, Family]:
        """Give the pipeline's class and what is known of it."""
        families = FAMILIES[self.table["backend"]]
        default = {"in_context": InContext.pipeline, "ip_adapter": IpAdapter.pipeline}
        name = str(self.table.get("pipeline") or default.get(self.table["backend"], ""))
        return name, family_of(families, name)

    def files(self, folder: Path) -> Files:
        """Give the patterns of its files; a pipeline's index must be in the folder."""
        names = self.source().names() if self.variant else ()
        if self.kind == "pipeline":
            return pipeline_files(read_index(folder)[1], self.variant, names)
        if self.kind == "controlnet":
            return branch_files(self.variant, names)
        if self.kind == "adapter":
            return adapter_files(*self.adapter()), ()
        return CLIP_FILES, ()

    def at(self, commit: str) -> Piece:
        """Give the same model at a commit."""
        return replace(self, table={**self.table, f"{self.prefix}revision": commit})

    def adapter(self) -> tuple[str, str, str]:
        """Give an adapter's folder, its file and the folder of its picture encoder, as the engine does."""
        keys = ("adapter_subfolder", "adapter_weight", "image_encoder")
        subfolder, weight, encoder = (str(self.table.get(key, getattr(IpAdapter, key))) for key in keys)
        return subfolder, weight, encoder


def pieces(settings: Settings) -> list[Piece]:
    """List the models of a profile."""
    second = settings.retrieval.second
    encoders = [clip(choice) for choice in (settings.encoder, second) if choice]
    return [*generator_pieces(settings.generator), *encoders, _elsewhere("mllm", settings.mllm)]


def generator_pieces(choice: BackendChoice) -> Iterator[Piece]:
    """List what a generator loads."""
    if choice.backend not in FAMILIES:
        yield _elsewhere("generator", choice)
        return
    table = {"backend": choice.backend, **choice.arguments}
    yield Piece("generator", "pipeline", table)
    if choice.backend == "ip_adapter":
        yield Piece("adapter", "adapter", table, "adapter_")
    if choice.backend == "controlnet":
        yield Piece("controlnet", "controlnet", table, "controlnet_")


def clip(choice: BackendChoice) -> Piece:
    """Name an encoder; raises `BadInput` for one of open_clip's names whose weights are not on the hub."""
    if choice.backend != "open_clip":
        return _elsewhere("encoder", choice)
    table, name = choice.arguments, str(choice.arguments.get("model", ""))
    if name.startswith(LOCAL):
        return Piece("encoder", "open_clip", {"folder": name.removeprefix(LOCAL)})
    hub, commit = known(table)
    found = {"model": hub or hub_id(table), "revision": str(table.get("commit") or commit)}
    return Piece("encoder", "open_clip", found, kept_as=label(table))


def _elsewhere(role: str, choice: BackendChoice) -> Piece:
    """Name a model that brings no files that are known here."""
    where = str(choice.arguments.get("base_url") or "")
    return Piece(role, "elsewhere", {"model": choice.label}, where=where)


def is_absent(piece: Piece) -> bool:
    """Return whether no file of a model is here; False where its files are not known, or no commit is set."""
    try:
        return piece.kind != "elsewhere" and piece.source().here() is None
    except BadInput:
        return False


def faults(piece: Piece, checksums: bool = False) -> Iterator[str]:
    """Say everything that is wrong with a model's files; nothing where all is well."""
    if piece.kind == "elsewhere":
        return
    try:
        folder = piece.source().here()
        if folder is None:
            yield "it is not here"
            return
        yield from _content(piece, folder)
    except BadInput as fault:
        yield str(fault)
        return
    if checksums:
        yield from changed(folder)


def _content(piece: Piece, folder: Path) -> Iterator[str]:
    """Look at the configs and weights that a model's engine will open."""
    if piece.kind == "pipeline":
        name, family = piece.family()
        for part in require_class(folder, name, family.opens):
            yield from of_part(folder / part, part, piece.variant)
    elif piece.kind == "adapter":
        subfolder, weight, encoder = piece.adapter()
        yield from whole([folder / subfolder / weight], folder)
        inside = encoder_folder(subfolder, encoder)
        yield from of_part(folder / inside, inside)
    elif piece.kind == "controlnet":
        yield from of_part(folder, ".", piece.variant)
    else:
        yield from whole([folder / WEIGHTS], folder)


def _size_here(piece: Piece) -> int:
    """Count the bytes of a model's files that are here."""
    try:
        folder = piece.source().here()
    except BadInput:
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder else 0


def state(piece: Piece) -> str:
    """Say in a few words whether a model is here, with its size on the disk."""
    if piece.kind == "elsewhere":
        return f"at {piece.where}" if piece.where else "nothing known to download"
    if piece.on_hub and not piece.revision:
        return "at no commit yet: a pull takes the present one"
    size = _size_here(piece)
    if not size:
        return "not here"
    return f"{'incomplete' if any(faults(piece)) else 'here'}, {in_words(size)}"


def in_words(size: int) -> str:
    """Write a number of bytes for people."""
    for unit, most in (("bytes", 1000), ("kB", 10**6), ("MB", 10**9)):
        if size < most:
            return f"{size * 1000 / most:.0f} {unit}"
    return f"{size / 10**9:,.1f} GB"
