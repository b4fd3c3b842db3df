"""Settings of a run: profiles, files, environment variables and single keys, merged by rank.

From strongest to weakest: `--set key=value`, `PLEINAIR_SECTION__KEY`, `./pleinair.toml`, the user's
`pleinair.toml`, the profile, the defaults below. A table with another backend replaces the weaker table as a
whole, since its arguments are those of one backend.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import reduce
from operator import not_
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args
from urllib.parse import urlsplit

from platformdirs import user_config_path
from pydantic import AfterValidator, Field, ValidationError, WrapValidator

from pleinair.agent.repairs.leaks import LeakOptions
from pleinair.app.cluster import ClusterOptions
from pleinair.app.models.pins import pinned_layer
from pleinair.app.paths import Paths, places
from pleinair.app.toml.trees import (
    MAX_KEY,
    Tree,
    has,
    leaves,
    merged,
    nested,
    read_toml,
    read_value,
    table_at,
    value_at,
)
from pleinair.app.toml.trust import FILE, VARIABLE, Untrusted, trusted_part
from pleinair.tools.arguments import check_leaves, explain
from pleinair.tools.cluster.ray_serve import ServeOptions
from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.images.limits import MAX_PIXELS
from pleinair.tools.pocket.worlds import with_world
from pleinair.tools.realrag import RealRAGOptions
from pleinair.tools.retrieval.compose import RetrievalOptions
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.retrieval.roots.addresses import address_of, is_url
from pleinair.tools.storage.files import checked_path
from pleinair.tools.types import Approve, BadInput, Budget, ImageOptions, Value
from pleinair.tools.worker.worker import WorkerOptions


class Renamed(DeprecationWarning):
    """Warning about a name that was changed: of a setting, flag, argument or module; it works until 1.0."""


OnPreview = Callable[[bytes], None]  # receives a small PNG of the image in progress
Layer = tuple[str, Tree]  # its origin, its keys
REQUEST = "the request"  # origin of what a command or a call sets

DEFAULT = "pocket"
POCKET = "pocket"  # the library that is generated on first use
WATCH = 5.0
_PREFIX = "PLEINAIR_"
_OUTSIDE = {"PLEINAIR_HOME", "PLEINAIR_SERVE_TOKEN", VARIABLE}  # no keys of the settings
_RENAMED = {  # keys that changed their name, accepted with a warning until 1.0
    "retrieval.floor": "threshold",
    "generator.engine": "backend",
    "encoder.engine": "backend",
    "mllm.engine": "backend",
    "mllm.eyes": "detector",
    "retrieval.second.engine": "backend",
}
PACKAGED = Path(__file__).with_name("profiles")


class BackendChoice(Value, extra="allow"):
    """A backend; every other key of the table is an argument of it."""

    backend: str = Field(min_length=1)

    @property
    def arguments(self) -> Tree:
        """Return the table without the backend's name."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """Return the backend and, if the table has them, the class of a program's object and the model."""
        facts = (self.arguments.get("class"), self.arguments.get("model") or self.arguments.get("folder"))
        model = " ".join(str(fact) for fact in facts if fact)
        return f"{self.backend}:{model}" if model else self.backend


def _one_or_more(value: Any) -> str | tuple[str, ...] | None:
    """Return a folder, or several as a tuple; raise `ValueError` for anything else."""
    if value is None or (isinstance(value, str) and value):
        return value
    folders = tuple(value) if isinstance(value, list | tuple) else ()
    if not folders or not all(isinstance(folder, str) and folder for folder in folders):
        raise ValueError("must be a folder, or a list of folders")
    return folders if len(folders) > 1 else str(folders[0])


_Folders = Annotated[str | tuple[str, ...] | None, WrapValidator(lambda value, _: _one_or_more(value))]


class LibraryChoice(Value):
    """The folders of reference images; "pocket" is the miniature library, made on first use."""

    folder: _Folders = None  # of reference images, or a list of them; "pocket": the miniature library
    readers: tuple[str, ...] = Field(default=(), exclude_if=not_)  # of captions, the first wins; empty: all
    max_pixels: int = Field(
        default=MAX_PIXELS, ge=10**6, le=10**9, exclude_if=MAX_PIXELS.__eq__
    )  # of a file, at 9 bytes each
    watch: float = Field(
        default=WATCH, ge=0, le=86_400, exclude_if=WATCH.__eq__
    )  # seconds between two looks of `serve` for changes, more for a large library; 0: none

    @property
    def folders(self) -> tuple[str, ...]:
        """Return the folders; none for the pocket library, or where none is set."""
        if self.folder is None or self.folder == POCKET:
            return ()
        return (self.folder,) if isinstance(self.folder, str) else self.folder

    def absolute(self) -> LibraryChoice:
        """Return the same library with absolute paths without links, so that it has one name."""
        if not self.folders:
            return self
        places = dict.fromkeys(map(address_of, self.folders))
        return self.model_copy(update={"folder": _one_or_more(list(places))})


class RetrievalKnobs(RetrievalOptions):
    """Options of retrieval, with the hits per concept and the second encoder of "both"."""

    k: int = Field(default=4, ge=1, le=64)  # hits for each concept
    second: BackendChoice | None = None  # table of the second encoder, for the method "both"


class PathChoice(Value):
    """Folders of runs and of results; an empty home is the platform's data folder."""

    home: str = ""  # folder of the runs; empty: the platform's data folder
    out: str = Field(default="pleinair-out", min_length=1)  # folder of the results


class OutputOptions(Value):
    """Whether previews are made for whoever watches a run; they are stored nowhere."""

    previews: bool = True  # show images in progress


def web_address(text: str) -> str:
    """Return the address of a web server as it is; raise `ValueError` for anything else."""
    parts = urlsplit(text)
    is_address = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"[\s\"'<>]", text)
    if not is_address or parts.query or parts.fragment:
        raise ValueError("must be an address such as http://127.0.0.1:6006")
    if "@" in parts.netloc:
        raise ValueError("must have no user or password; headers are in OTEL_EXPORTER_OTLP_HEADERS")
    return text


def _switch_or_address(value: bool | str) -> bool | str:
    if isinstance(value, str):
        with suppress(ValueError):
            return web_address(value)
        raise ValueError(
            "must be true, false, or an address such as http://127.0.0.1:6006, without a password"
        )
    return value


class TracingOptions(Value):
    """Traces: of MLLM calls in a run's folder, and those that are sent to LangSmith or an OTLP collector."""

    images: bool = False  # send the images of MLLM calls to LangSmith, too
    messages: bool = Field(default=True, exclude_if=bool)  # store the messages of MLLM calls with the run
    otlp: Annotated[bool | str, AfterValidator(_switch_or_address)] = Field(
        default=False, exclude_if=not_
    )  # send traces to an OTLP collector: its address, or true for that of OTEL_EXPORTER_OTLP_ENDPOINT
    image_url: Annotated[str, AfterValidator(lambda text: text and web_address(text))] = Field(
        default="", exclude_if=not_
    )  # address of `pleinair serve` for images in OTLP traces, or one with {file}, {run} and {sha256}


class Settings(Value):
    """All settings of a run."""

    profile: str = DEFAULT  # defaults for everything below, by name or path
    generator: BackendChoice
    encoder: BackendChoice
    mllm: BackendChoice
    worker: WorkerOptions = WorkerOptions()
    library: LibraryChoice = LibraryChoice()
    retrieval: RetrievalKnobs = RetrievalKnobs()
    crops: CropOptions = CropOptions()
    leak: LeakOptions = LeakOptions()
    imagerag: ImageRAGOptions = ImageRAGOptions()
    realrag: RealRAGOptions = RealRAGOptions()
    crossmodal: CrossmodalOptions = CrossmodalOptions()
    image: ImageOptions = Field(default=ImageOptions(), exclude_if=lambda options: options == ImageOptions())
    budget: Budget = Budget()
    approve: Approve = Field(default="", exclude_if=not_)  # ask before references, or the draft too
    paths: PathChoice = PathChoice()
    output: OutputOptions = OutputOptions()
    tracing: TracingOptions = Field(
        default=TracingOptions(), exclude_if=lambda options: options == TracingOptions()
    )
    ray_serve: ServeOptions = Field(
        default=ServeOptions(), exclude_if=lambda options: options == ServeOptions()
    )
    cluster: ClusterOptions = Field(
        default=ClusterOptions(), exclude_if=lambda options: options == ClusterOptions()
    )


def home_of(settings: Settings) -> Paths:
    """Return where runs are by these settings."""
    shared = settings.cluster
    return places(settings.paths.home, shared.database, shared.objects, shared.vectors_url)


def require_shared(settings: Settings) -> Settings:
    """Return settings of a request; raise `BadInput` if they have another cluster than all runs here."""
    own = load(untrusted="ignore").cluster
    for key in type(own).model_fields:
        wanted, shared = getattr(settings.cluster, key), getattr(own, key)
        if wanted != shared:
            raise BadInput(
                f"cluster.{key} = {wanted!r}: the runs of this machine have {shared!r}; accepted: that one",
                f"Set PLEINAIR_CLUSTER__{key.upper()}, or PLEINAIR_PROFILE for a profile that has it, or "
                f"write either into {user_config_path('pleinair') / FILE}; no single request can choose it.",
            )
    return settings


def renamed(tree: Tree) -> tuple[Tree, list[str]]:
    """Return a tree with the current keys, and a sentence for each key that was renamed."""
    remarks = []
    tree = deepcopy(tree)
    for key, current in _RENAMED.items():
        place, _, former = key.rpartition(".")
        table = table_at(tree, place)
        if former in table and current not in table:
            table[current] = table.pop(former)
            remarks.append(f"{key} is now called {place}.{current}")
    return tree, remarks


def load(
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    untrusted: Untrusted = "refuse",
    origin: str = REQUEST,
) -> Settings:
    """Merge all sources into settings.

    `overrides` maps dotted keys ("retrieval.k") to values or tables, set in `origin`; `untrusted` says what
    is done with the keys of `./pleinair.toml` that need trust. Raises `BadInput` with the key, the value,
    where it was set and what is accepted.
    """
    if not isinstance(profile, str | None):
        raise BadInput(f"profile = {profile!r}: must be the name or the file of one, as a text")
    return _checked(_layers(profile, checked_overrides(overrides), untrusted, origin))


def checked_overrides(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of overrides; raises `BadInput` for what is no table with texts as keys."""
    if overrides is None:
        return {}
    if isinstance(overrides, Mapping) and all(isinstance(key, str) for key in overrides):
        return dict(overrides)
    remedy = 'Pass a table of dotted settings, such as {"retrieval.k": 8}.'
    raise BadInput(f"overrides = {repr(overrides)[:80]}: must be a table with texts as keys", remedy)


def _layers(
    profile: str | None,
    overrides: Mapping[str, Any],
    untrusted: Untrusted = "refuse",
    place: str = REQUEST,
) -> list[Layer]:
    """Return all sources, the weakest first."""
    sources = [*_files(untrusted), ("environment", _environment()), (place, nested(overrides))]
    strong = [(origin, _current(tree, origin)) for origin, tree in sources]
    names = [str(tree["profile"])[:MAX_KEY] for _, tree in strong if "profile" in tree]
    name = profile or [DEFAULT, *names][-1]
    layers = [(f"profile {name}", read_profile(name)), *strong, ("profile", {"profile": name})]
    return [*layers, ("pinned commits", pinned_layer(_of(layers)))]


class Origin(NamedTuple):
    """Setting that is not the profile's, and where it was set."""

    key: str
    value: Any
    origin: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}  ({self.origin})"


def origins(profile: str | None = None, overrides: Mapping[str, Any] | None = None) -> list[Origin]:
    """List the settings that differ from the profile's, by key; raise as `load` does."""
    first, *strong = _layers(profile, overrides or {})
    settings = _checked([first, *strong]).model_dump(mode="json")
    found: dict[str, Origin] = {}
    for origin, tree in strong:
        for key, value in leaves(tree):
            if value_at(settings, key) == value and key != "profile":
                found[key] = Origin(key, value, origin)
    profile_origin = next((name for name, tree in reversed(strong[:-2]) if "profile" in tree), "default")
    chosen = Origin("profile", settings["profile"], "--profile" if profile else profile_origin)
    return [chosen, *(found[key] for key in sorted(found))]


def altered(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Set single keys of existing settings; files and environment are not read again."""
    before: Tree = settings.model_dump(mode="json")
    return _checked([("the run", before), (REQUEST, _current(nested(overrides), REQUEST))])


def profiles() -> dict[str, Path]:
    """List the profiles by name: the packaged ones, and the user's own, which replace them."""
    folders = (PACKAGED, user_config_path("pleinair") / "profiles")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def require_profile(name: str) -> None:
    """Raise `BadInput` unless a profile is one by name: a file elsewhere could have any settings."""
    if name.partition("+")[0] not in (names := profiles()):
        raise BadInput(f"profile {name[:60]!r}: no such profile; accepted: {', '.join(names)}")


def chat_servers() -> dict[str, Path]:
    """List the files of local chat servers by name; "klein+ollama" is the profile `klein` with Ollama."""
    return {path.stem: path for path in sorted((PACKAGED / "servers").glob("*.toml"))}


def read_profile(name: str, above: tuple[str, ...] = ()) -> Tree:
    """Read a profile by name, or by path if it ends in .toml, merged over the one that it `extends`.

    "PROFILE+SERVER" is a profile with the [mllm] table of a local chat server.
    """
    name, plus, server = (name, "", "") if name.endswith(".toml") else name.partition("+")
    available = profiles()
    path = checked_path(name, "profile") if name.endswith(".toml") else available.get(name)
    if path is None or not path.is_file():
        choices = ", ".join(available)
        raise BadInput(f"profile = {name[:MAX_KEY]!r}: no such profile; accepted: {choices}, or a .toml file")
    if plus:
        if server not in chat_servers():
            choices = ", ".join(chat_servers())
            raise BadInput(f"profile = {f'{name}+{server}'!r}: no such chat server; accepted: {choices}")
        return merged(read_profile(name, above), read_toml(chat_servers()[server]))
    tree = _current(read_toml(path), str(path))
    below = tree.pop("extends", None)
    if below is None:
        return tree
    if below in (*above, name):
        raise BadInput(f"extends = {below!r} (set in: {path}): circular `extends`")
    return merged(read_profile(str(below), (*above, name)), tree)


def license_setting(license: Licenses | None) -> Tree:
    """Return the setting that a choice of licenses means, {} for None; raises `BadInput`."""
    if license is None:
        return {}
    if license not in get_args(Licenses):
        raise BadInput(f"license = {str(license)[:40]!r}: accepted: {', '.join(get_args(Licenses))}")
    return {"retrieval.licenses": [] if license == "any" else [license]}


def assignments(texts: Sequence[str] | None, options: Mapping[str, Any] | None = None) -> Tree:
    """Parse `key=value` texts; a value that is not TOML is a string.

    `options` are values of keys that an interface has options for; they win, and None or [] sets nothing.
    """
    pairs = [text.partition("=") for text in texts or ()]
    for key, sign, _ in pairs:
        if not (key and sign):
            raise BadInput(f"--set {key[:MAX_KEY]!r}: must be key=value, for example retrieval.k=8")
    values = {key.strip(): read_value(key.strip(), text) for key, _, text in pairs}
    return values | {key: value for key, value in (options or {}).items() if value not in (None, [])}


def _current(tree: Tree, origin: str) -> Tree:
    tree, remarks = renamed(tree)
    if isinstance(tree.get("library"), str | list):
        tree["library"] = {"folder": tree["library"]}
    for remark in remarks:
        warnings.warn(f"{remark} (set in: {origin})", Renamed, stacklevel=3)
    return tree


def _files(untrusted: Untrusted) -> list[Layer]:
    user, here = user_config_path("pleinair") / FILE, Path(FILE)
    layers = [(str(user), read_toml(user))] if _is_file(user) else []
    if _is_file(here) and not (layers and here.samefile(user)):
        layers.append((str(here), trusted_part(here, read_toml(here), untrusted)))
    return layers


def _environment() -> Tree:
    flat = {}
    for name, text in os.environ.items():
        if name.startswith(_PREFIX) and name not in _OUTSIDE:
            key = name.removeprefix(_PREFIX).lower().replace("__", ".")
            flat[key] = read_value(key, text)
    return nested(flat)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def _of(layers: Sequence[Layer]) -> Tree:
    return reduce(merged, (layer for _, layer in layers), {})


def _checked(layers: Sequence[Layer]) -> Settings:
    tree = _of(layers)
    for table, values in tree.items():
        check_leaves({table: values})
    tree = with_world(tree)
    try:
        settings = Settings.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise BadInput("; ".join(_complaints(error, layers)), field=field) from error
    paths = {"paths.home": (settings.paths.home,), "paths.out": (settings.paths.out,)}
    for key, texts in (paths | {"library.folder": settings.library.folders}).items():
        for text in texts:
            if is_url(text):
                address_of(text)
            else:
                checked_path(text, key)
    return settings


def _complaints(error: ValidationError, layers: Sequence[Layer]) -> Iterator[str]:
    for detail in error.errors():
        place = tuple(str(part) for part in detail["loc"])
        origin = next((name for name, tree in reversed(layers) if has(tree, place)), "nowhere")
        value = "nothing" if detail["type"] == "missing" else repr(detail["input"])[:80]
        yield f"{'.'.join(place)} = {value} (set in: {origin}): {explain(detail, Settings)}"
