"""Object storage as a file system of fsspec, by obstore, with errors that are `OSError`.

Only `object_store` imports this module, where obstore is wanted.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.fsspec import FsspecStore

_BACKOFF = {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=4), "base": 2}
_RETRIES = {  # a pause of some seconds is bridged; obstore's own wait is up to 180 s
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=30),
    "backoff": _BACKOFF,
}
_QUERY = re.compile(r"(?<=\w)\?\S*|<.*")  # of an address, where a signature may be; and XML
_MOST_WORDS = 300  # characters of obstore's own words


class ObstoreFiles(FsspecStore):  # type: ignore[misc]  # untyped where obstore is not installed
    """Objects of a bucket as files; a read or write is one request, and an object is replaced as a whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Store the arguments of `FsspecStore`, with fewer retries than its own."""
        super().__init__(*args, **{"retry_config": _RETRIES, **kwargs})

    async def _rm_file(self, path: str, **options: Any) -> None:
        with _os_errors(path):
            await super()._rm_file(path, **options)

    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **options: Any) -> Any:
        with _os_errors(path):
            return await super()._pipe_file(path, value, mode, **options)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        with _os_errors(path):
            return bytes(await super()._cat_file(path, start, end, **options))

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        with _os_errors(path):
            return dict(await super()._info(path, **options))

    async def _ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        with _os_errors(path):
            return await super()._ls(path, detail=detail, **options)

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **options: Any
    ) -> Any:
        """Return the objects below a path: one request for each thousand, and not one for each folder."""
        if maxdepth is not None or withdirs:
            return await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, **options)
        bucket, prefix = self._split_path(self._strip_protocol(path))
        found = dict[str, dict[str, Any]]()
        with _os_errors(path):
            async for objects in self._construct_store(bucket).list(prefix or None):
                for each in objects:
                    found[f"{bucket}/{each['path']}"] = _entry(bucket, each)
        if not found and prefix:  # it may be a file itself
            with suppress(FileNotFoundError):
                found = {f"{bucket}/{prefix}": await self._info(f"{bucket}/{prefix}")}
        return found if options.get("detail") else sorted(found)


def _entry(bucket: str, about: Any) -> dict[str, Any]:
    facts = {key: about[key] for key in ("size", "e_tag", "last_modified")}
    return {"name": f"{bucket}/{about['path']}", "type": "file", **facts}


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Raise the errors of obstore as `OSError`, in its own words without queries."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object or bucket", path) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(
            errno.EACCES, f"the credentials were refused ({_words(error)})", path
        ) from error
    except BaseError as error:
        raise OSError(errno.EIO, _words(error), path) from error


def _words(error: Exception) -> str:
    first = _QUERY.sub("", str(error).partition("\n")[0].strip())
    return f"{first[:_MOST_WORDS]}…" if len(first) > _MOST_WORDS else first
