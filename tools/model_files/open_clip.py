"""Files of open_clip's models on the hub, at one commit: safetensors only, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pleinair.tools.locks import serialized
from pleinair.tools.model_files.hub import Source
from pleinair.tools.types import BadInput

LOCAL, HUB = "local-dir:", "hf-hub:"
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
PREFERRED = (WEIGHTS, "open_clip_pytorch_model.safetensors")  # open_clip loads them before all others
FILES = (WEIGHTS, CONFIG, "*.json", "*.txt", "*.model")  # the last three include a tokenizer's
# the profiles' models, at commits that public projects pin
PINNED = {
    "ViT-B-32/openai": (
        "timm/vit_base_patch32_clip_224.openai",
        "a6f597a30f7b82c51704746581f9a4e41421e878",
    ),
    "ViT-B-32/laion2b_s34b_b79k": (
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "1a25a446712ba5ee05982a381eed697ef9b435cf",
    ),
}


def model_label(table: Mapping[str, Any]) -> str:
    """Return the model of an encoder's table: a hub id, or open_clip's name with its tag."""
    model, tag = str(table.get("model", "")), str(table.get("revision", ""))
    return model.removeprefix(HUB) if model.startswith(HUB) else f"{model}/{tag}"


def is_unpinned(table: Mapping[str, Any]) -> bool:
    """Return whether an encoder's table sets a model of the hub without a commit."""
    is_local = str(table.get("model", "")).startswith(LOCAL)
    return not (is_local or table.get("commit") or model_label(table) in PINNED)


def hub_location(table: Mapping[str, Any]) -> tuple[str, str]:
    """Return the hub id and the commit of an encoder's table, "" if it has none; see `_hub_id` for errors."""
    hub_id, commit = PINNED.get(model_label(table), ("", ""))
    return hub_id or _hub_id(table), str(table.get("commit") or commit)


def clip_source(table: Mapping[str, Any]) -> Source:
    """Return an encoder's files on the hub; raise `BadInput` if no commit is set."""
    hub_id, commit = hub_location(table)
    return Source(model=hub_id, revision=commit, table="encoder", revision_key="commit")


@serialized
def _hub_id(table: Mapping[str, Any]) -> str:
    """Return an encoder's hub id from open_clip's own table; raise `BadInput` if that has none."""
    name, tag = str(table.get("model", "")), str(table.get("revision", ""))
    if name.startswith(HUB):
        return name.removeprefix(HUB)
    import open_clip

    address = str((open_clip.get_pretrained_cfg(name, tag) or {}).get("hf_hub", ""))
    hub_id, _, _ = address.rpartition("/")
    if not hub_id:
        tags = open_clip.list_pretrained_tags_by_model(name)
        on_hub = [other for other in tags if open_clip.get_pretrained_cfg(name, other).get("hf_hub")]
        raise BadInput(
            f"open_clip knows no weights {tag!r} of {name} on the hub.",
            f"Use one of {', '.join(on_hub) or 'another model'}, or a folder with {WEIGHTS} as "
            "local-dir:FOLDER.",
        )
    return hub_id


def may_load_pickle(folder: Path) -> bool:
    """Return whether open_clip, which selects weights by their names, might load a pickle from a folder."""
    has_pickle = any(path.suffix in (".bin", ".pth", ".pt") for path in folder.iterdir())
    return has_pickle and not any((folder / name).is_file() for name in PREFERRED)


def fetch_clip(source: Source) -> Path:
    """Return the folder with a model's files; raise `BadInput` if it has no safetensors."""
    listed, folder = source.missing_listed(("*",)), source.local_folder()
    if listed is not None and WEIGHTS not in listed and not (folder and (folder / WEIGHTS).is_file()):
        raise BadInput(
            f"{source.model} at {source.revision} has no {WEIGHTS}, and no other format is loaded.",
            "Use another commit or model.",
        )
    return source.require_files(FILES)
