"""File systems of fsspec by URL, those of object storage by obstore where the usual driver is not installed.

Credentials and endpoints come from the environment, as obstore reads it: `AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` for s3, `GOOGLE_APPLICATION_CREDENTIALS` for gs,
`AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY` for az. Run against an S3 server (moto) only:
gs and az are registered in the same way and were not tried.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pleinair.tools.types import BadInput

_DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}  # fsspec's own


def open_files(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path of the URL there; nothing is asked.

    Raise `BadInput` for a URL that fsspec has no driver for.
    """
    from fsspec.core import url_to_fs

    require_driver(url)
    files, root = url_to_fs(url)
    return files, str(root).rstrip("/")


def require_driver(url: str) -> None:
    """Raise `BadInput` if fsspec has no driver for a URL, or needs a package for it. Nothing is asked."""
    from fsspec import get_filesystem_class
    from fsspec.registry import known_implementations, registry

    scheme = url.partition("://")[0]
    if scheme in _DRIVERS and scheme not in registry and not find_spec(_DRIVERS[scheme]):
        _register(scheme)
    try:
        get_filesystem_class(scheme)
    except ValueError:
        accepted = "s3, gs, az, file, http, https, and others of fsspec"
        raise BadInput(f"{scheme}://: no such storage; accepted: {accepted}") from None
    except ImportError:
        advice = known_implementations.get(scheme, {}).get("err", f"Install fsspec's driver for {scheme}")
        raise BadInput(
            f"{scheme}:// needs a package that is not installed", f"{advice.rstrip('.')}."
        ) from None


def _register(scheme: str) -> None:
    """Make obstore fsspec's driver of a scheme; raise `BadInput` without it."""
    from fsspec import register_implementation

    try:
        from pleinair.tools.storage.obstore_files import ObstoreFiles
    except ImportError:
        remedy = "Run `pip install 'pleinair[cluster]'`."
        raise BadInput(f"{scheme}:// needs a package that is not installed: obstore", remedy) from None
    kind = type(f"ObstoreFiles_{scheme}", (ObstoreFiles,), {"protocol": scheme})
    register_implementation(scheme, kind, clobber=True)
