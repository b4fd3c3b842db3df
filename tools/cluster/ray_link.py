"""Connection of this process to a Ray cluster, made once.

Ray's usage statistics are off, no dashboard is started, and the workers' output stays in their log files.
On loopback addresses, and for a cluster of this process alone, every part of Ray that has a setting for it
listens on 127.0.0.1 only. Ray authenticates nobody by default: a cluster belongs into a private network.

Not covered: a connection across a fork, and two clusters in one process. Where the head of a cluster dies,
Ray ends the processes that are connected to it after a minute (`gcs_rpc_server_reconnect_timeout_s`), by
itself and without an exception.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pleinair.tools.types import BadInput, PleinairError

LOCAL, AUTO = "local", "auto"
NAMESPACE = "pleinair"
ACCEPTED = '"" (no Ray), "local", "auto" or "host:port"'
FIELD = "cluster.ray"
_SECONDS = 5.0  # in which a cluster must answer
_STORE_BYTES = 512 * 2**20  # of the object store of a local cluster, in shared memory
_ADDRESS = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call after the end of a connection would make one to any cluster here
}
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": Ray uses 127.0.0.1; read when Ray is imported
_HEALTH = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_START = "Start one with `ray start --head --disable-usage-stats`, or set cluster.ray to its address."
_LOCK = threading.Lock()
_CONNECTED: dict[str, str] = {}  # the address as it was set, by "address"; empty before the first connection


def ray_address(text: str) -> str:
    """Return the address of a cluster as it is; raise `ValueError` for anything but `ACCEPTED`."""
    match = _ADDRESS.fullmatch(text)
    if text in ("", LOCAL, AUTO) or (match and 0 < int(match[1]) < 65_536):
        return text
    raise ValueError(f"must be {ACCEPTED}")


def require_cluster(address: str) -> None:
    """Raise as `connect`, without connecting, unless a cluster answers; that of "local" needs only Ray."""
    _check(address)
    _prepare(address)
    ray = _load()
    if address != LOCAL and not ray.is_initialized():
        with _explained(address):
            _require_alive(_resolved(address))


def connect(address: str) -> Any:
    """Connect this process to a cluster unless it is connected already, and return the module `ray`.

    Args:
        address: "local" for a cluster of this process alone, which ends with it; "auto" for the one that
            `ray start` has started on this machine; else "host:port" of its head.

    Raises:
        BadInput: the address is none, no cluster answers there within some seconds, its Ray or Python has
            another version, or this process is connected to another one.
        PleinairError: Ray is not installed.
    """
    _check(address)
    with _LOCK:
        _prepare(address)
        ray = _load()
        if ray.is_initialized():
            _require_same(address)
            return ray
        _connect(ray, address)
        _CONNECTED["address"] = address
        return ray


def disconnect() -> None:
    """Leave the cluster, and end one of this process alone; do nothing without a connection."""
    with _LOCK:
        if _CONNECTED.pop("address", None) is not None:
            _load().shutdown()


def _load() -> Any:
    """Import Ray; raise `PleinairError` if it is not installed."""
    try:
        import ray
    except ImportError as error:
        text = f"{FIELD} is set, and Ray is not installed: {error}."
        raise PleinairError(text, "Run `pip install 'pleinair[cluster]'`.") from None
    return ray


def _check(address: str) -> None:
    try:
        is_none = not ray_address(address)
    except ValueError as error:
        raise BadInput(f"{FIELD} = {address[:80]!r}: {error}", field=FIELD) from None
    if is_none:
        raise BadInput(f"{FIELD} is not set, so that no Ray cluster is used", _START, field=FIELD)


def _require_same(address: str) -> None:
    """Raise `BadInput` if this process is connected to another cluster by `connect`."""
    present = _CONNECTED.get("address", address)  # a program's own connection is used as it is
    if present != address:
        text = f"{FIELD} = {address!r}: this process is connected to the Ray cluster {present!r}"
        raise BadInput(text, "Use one cluster in one process.", field=FIELD)


def _prepare(address: str) -> None:
    """Set the variables that Ray reads when it is imported, and which the processes it starts inherit."""
    os.environ.update(_ENVIRONMENT)
    if address == LOCAL or (address != AUTO and _is_loopback(address)):
        os.environ.setdefault(_LOOPBACK, "0")


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _connect(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if address != LOCAL:
        require_cluster(address)
    with _own_signals(), _explained(address):
        ray.init(
            address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level="error",
            **(options if address == LOCAL else {}),
        )


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Raise what Ray raises while it connects as `BadInput`."""
    try:
        yield
    except BadInput:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        text = f"{FIELD} = {address!r}: Ray cannot connect: {' '.join(lines[:4])[:400]}"
        raise BadInput(text, _START, field=FIELD) from error


def _resolved(address: str) -> str:
    """Return the address that "auto" stands for; raise `ConnectionError` if this machine has no cluster."""
    if address != AUTO:
        return address
    from ray._private.services import get_ray_address_from_environment

    return str(get_ray_address_from_environment(AUTO, None))


def _require_alive(address: str) -> None:
    """Raise `BadInput` unless the head of a cluster answers.

    `ray.init` itself waits for a minute, and then ends the process instead of raising.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel  # as Ray connects: with its TLS and tokens
    from ray.core.generated.gcs_service_pb2 import CheckAliveReply, CheckAliveRequest

    with init_grpc_channel(address) as channel:
        ask = channel.unary_unary(_HEALTH, CheckAliveRequest.SerializeToString, CheckAliveReply.FromString)
        try:
            ask(CheckAliveRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            code = getattr(error, "code", lambda: None)()
            fault = f" ({code.name.lower().replace('_', ' ')})" if code else ""
            raise BadInput(
                f"{FIELD}: no Ray cluster answers at {address}{fault}", _START, field=FIELD
            ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore this process's handler of SIGTERM, which `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
