"""Settings of what several machines share: the database of runs, the storage of images, and a Ray cluster.

Empty ones are files of the home folder, and nothing of the extra `cluster` is imported.
"""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, model_validator

from pleinair.tools.cluster.ray_link import ray_address
from pleinair.tools.retrieval.roots.addresses import address_of
from pleinair.tools.types import BadInput, Value

RUN_DATABASE = "database"  # in place of a URL
_DATABASES = ("postgresql", "postgres")


def _database(url: str) -> str:
    """Return the URL of a Postgres database as it is; raise `ValueError` for anything else."""
    try:
        parts = urlsplit(url)
        is_database = not url or (parts.scheme in _DATABASES and bool(parts.path.strip("/")))
    except ValueError:
        is_database = False
    if not is_database:
        raise ValueError("must be a URL such as postgresql://user@host:5432/pleinair")
    if "password" in parse_qs(parts.query):
        raise ValueError("must have no password; it is in PGPASSWORD or in the file of PGPASSFILE")
    return url


def _vectors(url: str) -> str:
    """Return the URL of a Postgres database, or "database", as it is; raise `ValueError` for others."""
    try:
        return url if url == RUN_DATABASE else _database(url)
    except ValueError as error:
        raise ValueError(f"{error}, or {RUN_DATABASE!r} for that of cluster.database") from None


def _storage(url: str) -> str:
    """Return the URL of a storage that can be written to, without a slash at its end; raise `ValueError`."""
    scheme, sign, rest = url.partition("://")
    if url and not (sign and scheme not in ("", "http", "https") and rest.strip("/")):
        raise ValueError("must be a URL such as s3://bucket/folder, gs://…, az://… or file:///shared/folder")
    try:
        address_of(url)
    except BadInput:
        raise ValueError(
            "must have no user, password, query or `::`; credentials come from the environment"
        ) from None
    return url.rstrip("/")


class ClusterOptions(Value):
    """What the machines of a cluster share; a run cannot choose it, so it is in no request."""

    database: Annotated[str, AfterValidator(_database)] = Field(
        default="", exclude_if=lambda url: not url
    )  # Postgres of the runs, postgresql://user@host:5432/name; empty: files of the home
    workers: bool = Field(
        default=False, exclude_if=lambda value: not value
    )  # whether `pleinair worker` processes, on any machine, execute what programs and commands request
    objects: Annotated[str, AfterValidator(_storage)] = Field(
        default="", exclude_if=lambda url: not url
    )  # storage of images and of runs' files, s3://bucket/folder; empty: the home
    ray: Annotated[str, AfterValidator(ray_address)] = Field(
        default="", exclude_if=lambda address: not address
    )  # Ray cluster: host:port of its head; "auto": of this machine; "local": this process; builds indexes
    index_actors: int = Field(
        default=0, ge=0, le=10_000, exclude_if=lambda count: count == 0
    )  # processes of the cluster that embed images; 0: as many as it has room for
    index_cpus: float = Field(
        default=1.0, gt=0, le=1024, exclude_if=lambda count: count == 1
    )  # of the cluster's CPUs for each of them, and its threads
    index_gpus: float = Field(
        default=0.0, ge=0, le=16, exclude_if=lambda count: count == 0
    )  # of the cluster's GPUs for each of them; a fraction shares a GPU
    vectors: Annotated[str, AfterValidator(_vectors)] = Field(
        default="", exclude_if=lambda url: not url
    )  # Postgres of libraries that machines share, "database": that of the runs; empty: the home
    hnsw: bool = Field(
        default=False, exclude_if=lambda hnsw: not hnsw
    )  # publish libraries of 100,000 images and more with an index by HNSW: faster, approximate

    @model_validator(mode="after")
    def _has_database(self) -> Self:
        if self.vectors == RUN_DATABASE and not self.database:
            raise ValueError(f"vectors = {RUN_DATABASE!r} needs cluster.database")
        return self

    @property
    def vectors_url(self) -> str:
        """Return the URL of the database of shared libraries, "" without one."""
        return self.database if self.vectors == RUN_DATABASE else self.vectors
