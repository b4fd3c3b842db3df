"""What one call of `pleinair verify` measures: its parts, their order, and the profiles that are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.app.models.inventory import BACKENDS, find_faults, find_missing_files, profile_models
from pleinair.app.settings import Settings, load
from pleinair.tools.registry import did_you_mean
from pleinair.tools.types import BadInput, PleinairError

Row = dict[str, Any]  # JSON
Say = Callable[[str], None]  # receives what is being done

PROFILES = ("klein", "klein_kv", "sdxl", "kontext", "qwen_edit")
KINDS = ("machine", "doctor", "faiss", "encoder", "images", "times")
POCKET = "pocket"


class CannotMeasure(PleinairError):
    """This machine lacks what a part needs; the message says what, the remedy how to get it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options of a measurement; plain values, since they are sent to another process."""

    work: str  # folder of what is not part of the report
    out: str  # folder of the report
    profiles: tuple[str, ...] = PROFILES
    library: str = ""  # of the images that are drawn; empty: the pocket library
    tiny: bool = False  # tiny sizes on the CPU, which time nothing
    repeats: int = 3  # images that are timed, at most

    @property
    def device(self) -> str:
        """Return the torch device of what is timed; tiny sizes never need a GPU."""
        import torch

        return "cuda" if torch.cuda.is_available() and not self.tiny else "cpu"

    @property
    def home(self) -> Path:
        """Return the home folder of the runs of this measurement."""
        return Path(self.work) / "home"


@dataclass(frozen=True)
class Part:
    """A measurement that is stored as a whole; `profile` is the one that it is about."""

    name: str
    kind: str
    profile: str = ""
    compiled: bool = False


def make_parts(plan: Plan, only: Sequence[str] = ()) -> list[Part]:
    """List the parts in their order, cheap ones first; the machine is always among them.

    Args:
        plan: the options.
        only: kinds or names of parts; empty: all.

    Raises:
        BadInput: no part has such a name, or a profile has no generator that could be timed.
    """
    for name in plan.profiles:
        require_local(name)
    profiles = (*plan.profiles, POCKET) if plan.tiny else plan.profiles
    compiled = [False] if plan.tiny else [False, True]
    parts = [
        *(Part(kind, kind) for kind in ("machine", "doctor", "faiss", "encoder")),
        *(Part(f"images-{name}", "images", name) for name in (POCKET, *plan.profiles)),
        *(
            Part(f"times-{name}{'-compiled' * compiled}", "times", name, compiled)
            for compiled in compiled
            for name in profiles
        ),
    ]
    for text in only:
        if text not in (names := [*KINDS, *(part.name for part in parts)]):
            hint = did_you_mean(text, names)
            raise BadInput(
                f"--only {text!r}: no such part; accepted: {', '.join(dict.fromkeys(names))}.{hint}"
            )
    return [part for part in parts if not only or {part.kind, part.name} & {"machine", *only}]


def require_local(profile: str) -> Settings:
    """Return the settings of a profile; raise `BadInput` if its generator does not run on this machine."""
    settings = load(profile)
    if settings.generator.backend not in BACKENDS:
        raise BadInput(
            f"--profiles {profile!r}: its generator {settings.generator.backend!r} cannot be timed here",
            f"Name a profile with one of {', '.join(sorted(BACKENDS))}, such as {', '.join(PROFILES)}.",
        )
    return settings


def missing_weights(settings: Settings) -> Iterator[str]:
    """Yield what the generator of a profile lacks on this machine; nothing if it can be loaded."""
    for model in profile_models(settings):
        if model.role in ("encoder", "mllm") or model.kind == "elsewhere":
            continue
        if model.on_hub and not model.revision:
            yield f"{model.model} is not downloaded"
        else:
            faults = find_missing_files(model)[0] if model.on_hub else find_faults(model)
            yield from (f"{model.model}: {fault}" for fault in faults)
