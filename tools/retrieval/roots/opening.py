"""The folders, containers and URLs of a library by their addresses, and the images below them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pleinair.tools.callbacks import no_callback
from pleinair.tools.images.decoding import SUFFIXES as IMAGE_SUFFIXES
from pleinair.tools.retrieval.containers.container import SUFFIXES
from pleinair.tools.retrieval.roots.addresses import address_of, is_url
from pleinair.tools.retrieval.roots.local import LocalRoot, list_local
from pleinair.tools.retrieval.roots.remote import RemoteRoot
from pleinair.tools.retrieval.roots.root import Contents, Root
from pleinair.tools.retrieval.walk import Listing, has_image
from pleinair.tools.storage.object_store import require_driver
from pleinair.tools.types import NoLibrary

WANTED = (
    f"a folder of images ({', '.join(IMAGE_SUFFIXES)}), a file that contains images ({', '.join(SUFFIXES)}), "
    "or a URL of either"
)
Folders = str | Path | Sequence[str | Path]


def addresses_of(folders: Folders) -> tuple[str, ...]:
    """Return folders, containers and URLs as absolute paths without links and URLs, none inside another.

    Raise `NoLibrary` for a path that does not exist, `BadInput` for a URL that is not accepted.
    """
    texts = [str(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    unique = dict.fromkeys(map(address_of, texts))
    for text, address in zip(texts, map(address_of, texts), strict=True):
        if is_url(address):
            require_driver(address)
        elif not os.path.isdir(address) and not _is_container(address):
            raise NoLibrary(f"No folder {text}; accepted: {WANTED}.")
    return tuple(address for address in unique if not any(parent in unique for parent in _parents(address)))


def root_of(address: str, cache: Path | None = None) -> Root:
    """Return the root at an address by `addresses_of`; `cache` is the library's folder for what is read."""
    return RemoteRoot(address, cache and cache / "remote") if is_url(address) else LocalRoot(Path(address))


def by_prefix(addresses: Sequence[str]) -> dict[str, str]:
    """Return the addresses by the beginnings of ids: nothing for one, else their ends that differ."""
    if len(addresses) == 1:
        return {"": addresses[0]}
    parts = {address: PurePosixPath(address.replace("://", ":/")).parts for address in addresses}
    ends = (
        {f"{PurePosixPath(*path[-depth:])}/".lstrip("/"): address for address, path in parts.items()}
        for depth in range(1, 1000)
    )
    return next(prefixes for prefixes in ends if len(prefixes) == len(addresses))


def contents_of(
    roots: Mapping[str, Root],
    cache: Path | None = None,
    on_pause: Callable[[], None] = no_callback,
    on_progress: Callable[[int, int], None] = no_callback,
) -> dict[str, Contents]:
    """List the files of roots, by prefix, and those inside their containers, as `Contents.expand` does.

    Raise `NoLibrary` for a URL that lists nothing.
    """
    local = list_local([root for root in roots.values() if isinstance(root, LocalRoot)], on_pause)
    contents = dict[str, Contents]()
    for prefix, root in roots.items():
        listing = local[root] if isinstance(root, LocalRoot) else _listed(root, on_pause)
        contents[prefix] = Contents(root, listing, cache).expand(on_pause, on_progress)
    return contents


def has_images(folders: Folders) -> bool:
    """Return whether a library of the folders would have an image; the look ends at the first."""
    return any(_has_image(root_of(address)) for address in addresses_of(folders))


def _has_image(root: Root) -> bool:
    if isinstance(root, RemoteRoot):
        return root.has_image()
    assert isinstance(root, LocalRoot)
    if root.path.is_dir() and has_image([root.path]):
        return True
    return Contents(root, list_local([root])[root]).holds_image()


def _listed(root: Root, on_pause: Callable[[], None]) -> Listing:
    assert isinstance(root, RemoteRoot)
    return root.list(on_pause)


def _is_container(address: str) -> bool:
    return address.lower().endswith(SUFFIXES) and os.path.isfile(address)


def _parents(address: str) -> list[str]:
    scheme, _, rest = address.rpartition("://")
    paths = map(str, PurePosixPath(rest).parents)
    return [f"{scheme}://{path}" for path in paths] if scheme else list(paths)
