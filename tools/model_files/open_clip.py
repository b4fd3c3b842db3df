"""Where an open_clip model's files are on the hub, and at which commit: safetensors only, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pleinair.tools.locks import serialized
from pleinair.tools.model_files.hub import Source
from pleinair.tools.types import BadInput

LOCAL, HUB = "local-dir:", "hf-hub:"
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
FIRST = (WEIGHTS, "open_clip_pytorch_model.safetensors")  # open_clip takes them before all others
FILES = (WEIGHTS, CONFIG, "*.json", "*.txt", "*.model")  # the others are a tokenizer's
# what the profiles name, found at this commit in public projects that pin it
KNOWN = {
    "ViT-B-32/laion2b_s34b_b79k": (
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "1a25a446712ba5ee05982a381eed697ef9b435cf",
    ),
}


def label(table: Mapping[str, Any]) -> str:
    """Name the model of an encoder's table: a hub id, or open_clip's name with its tag."""
    model, tag = str(table.get("model", "")), str(table.get("revision", ""))
    return model.removeprefix(HUB) if model.startswith(HUB) else f"{model}/{tag}"


def is_unpinned(table: Mapping[str, Any]) -> bool:
    """Tell whether an encoder's table names a model on the hub without a commit."""
    local = str(table.get("model", "")).startswith(LOCAL)
    return not (local or table.get("commit") or label(table) in KNOWN)


def known(table: Mapping[str, Any]) -> tuple[str, str]:
    """Give the hub id and the commit that are known here, empty where none are."""
    return KNOWN.get(label(table), ("", ""))


def clip_source(table: Mapping[str, Any]) -> Source:
    """Give where an encoder's files are; raises `BadInput` where no commit is set."""
    hub, commit = known(table)
    return Source(
        model=hub or hub_id(table),
        revision=str(table.get("commit") or commit),
        table="encoder",
        revision_key="commit",
    )


@serialized
def hub_id(table: Mapping[str, Any]) -> str:
    """Look an encoder's hub id up in open_clip's own table; raises `BadInput` where it names none."""
    name, tag = str(table.get("model", "")), str(table.get("revision", ""))
    if name.startswith(HUB):
        return name.removeprefix(HUB)
    import open_clip

    found = str((open_clip.get_pretrained_cfg(name, tag) or {}).get("hf_hub", ""))
    place, _, file = found.rpartition("/")
    if not place:
        raise BadInput(
            f"{name} has weights {tag!r} at no place on the hub that open_clip knows",
            f"Take one of {', '.join(_on_hub(name)) or 'another model'}, or a folder with {WEIGHTS} as "
            "local-dir:FOLDER.",
        )
    return place


@serialized
def _on_hub(name: str) -> list[str]:
    """List the tags of a model whose weights are on the hub."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    return [tag for tag in tags if open_clip.get_pretrained_cfg(name, tag).get("hf_hub")]


def would_be_pickle(folder: Path) -> bool:
    """Tell whether open_clip, which looks for weights by their names, might take a pickle of a folder."""
    pickles = any(path.suffix in (".bin", ".pth", ".pt") for path in folder.iterdir())
    return pickles and not any((folder / name).is_file() for name in FIRST)


def fetch_clip(source: Source) -> Path:
    """Give the folder with a model's files; raises `BadInput` where it has no safetensors."""
    folder = source.fetch(FILES)
    if not (folder / WEIGHTS).is_file():
        raise BadInput(
            f"{source.model} at {source.revision} has no {WEIGHTS}, and nothing else is loaded.",
            "Take another commit or model.",
        )
    return folder
