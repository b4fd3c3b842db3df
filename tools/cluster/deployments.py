"""Applications of Ray Serve on a cluster: deploy them, list them with replicas and nodes, remove them.

No HTTP proxy is started: handles are the only way to a replica. Not covered: applications of other programs,
which are neither listed nor touched.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pleinair.tools.cluster import ray_link
from pleinair.tools.cluster.ray_serve import EncoderReplicaOptions, Part, ReplicaOptions, connect_serve
from pleinair.tools.types import BadInput, PleinairError, Value

_PREFIX = "pleinair"  # of the names of deployments
_POLL = 0.5  # seconds between two looks at applications that start
_DRAIN = 600.0  # seconds that a replica which is replaced has for the image it draws
_HEALTH = 5.0  # seconds between two checks of a replica's process, and until one counts as failed


class Application(NamedTuple):
    """What is to be deployed under a name."""

    name: str
    part: Part
    options: ReplicaOptions


class ReplicaState(Value):
    """A replica, and the node on which it is."""

    state: str  # of Ray Serve: STARTING, RUNNING, STOPPING …
    node: str  # address
    pid: int | None  # of its process, None before there is one


class ApplicationState(Value):
    """An application as the cluster reports it."""

    name: str
    status: str  # of Ray Serve: DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED, DELETING …
    message: str  # what is wrong; "" where nothing is
    wanted: int  # replicas that there should be now
    replicas: tuple[ReplicaState, ...]

    @property
    def is_ready(self) -> bool:
        """Return whether all wanted replicas answer."""
        running = sum(replica.state == "RUNNING" for replica in self.replicas)
        return self.status == "RUNNING" and running >= self.wanted

    def __str__(self) -> str:
        counts = Counter(replica.state.lower() for replica in self.replicas)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
        message = f": {' '.join(self.message.split())[:300]}" if self.message else ""
        return f"{self.name}: {self.status}, {self.wanted} wanted, {states}{message}"


class NodeState(Value):
    """A node of the cluster."""

    address: str
    alive: bool
    cpus: float  # that Ray may give to replicas and tasks
    gpus: float


class ClusterState(Value):
    """Nodes of a cluster, and the applications of this package on it."""

    nodes: tuple[NodeState, ...]
    applications: tuple[ApplicationState, ...]


def deploy(
    address: str, applications: Sequence[Application], report: Callable[[str], None], wait: float
) -> ClusterState:
    """Deploy applications, and return the state of the cluster once all their replicas answer.

    One of the same name is replaced: replicas that draw finish their images first.

    Args:
        address: of the cluster, as `ray_link.connect` takes it.
        applications: at least one.
        report: receives each change of an application's state, as a line.
        wait: seconds, after which Ray goes on without being watched.

    Raises:
        BadInput: no cluster, or it has no node for one replica.
        PleinairError: a replica cannot be built, with Ray's message, or the time is over.
    """
    if address == ray_link.LOCAL:
        raise BadInput(
            f"{ray_link.FIELD} = {address!r}: this cluster would end with the command",
            "Start one with `ray start --head --disable-usage-stats`, and set cluster.ray = 'auto'.",
            field=ray_link.FIELD,
        )
    ray = ray_link.connect(address)
    _require_room(ray, applications)
    serve = connect_serve(address)
    serve.start(proxy_location="Disabled")
    targets = [
        serve.RunTarget(_bound(application), name=application.name, route_prefix=None)
        for application in applications
    ]
    serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    return _watched({application.name for application in applications}, address, report, wait)


def status(address: str) -> ClusterState:
    """Return the nodes of a cluster and the applications of this package; raise as `ray_link.connect`."""
    ray = ray_link.connect(address)
    nodes = tuple(
        NodeState(
            address=node["NodeManagerAddress"],
            alive=node["Alive"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
    )
    return ClusterState(nodes=nodes, applications=tuple(_applications()))


def remove(address: str, names: Iterable[str], report: Callable[[str], None]) -> list[str]:
    """Remove applications of this package by name and return those that there were; others stay."""
    serve = connect_serve(address)
    wanted = set(names)
    present = sorted(app.name for app in _applications() if app.name in wanted)
    for name in present:
        report(f"{name}  removing")
        serve.delete(name)
    return present


def _bound(application: Application) -> Any:
    """Return an application of Ray Serve."""
    from ray import serve

    from pleinair.tools.cluster.replicas import Replica

    options, part = application.options, application.part
    batch, batch_wait = 1, 0.0
    if isinstance(options, EncoderReplicaOptions):
        batch, batch_wait = options.batch, options.batch_wait
    deployment = serve.deployment(Replica).options(
        name=f"{_PREFIX}-{part.kind}",
        # a replica answers one call at a time: what waits, waits where any free replica can take it
        max_ongoing_requests=1 if part.kind == "generator" else max(8, 2 * batch),
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_ongoing_requests,
        },
        ray_actor_options={"num_cpus": options.num_cpus, "num_gpus": options.num_gpus},
        graceful_shutdown_timeout_s=_DRAIN,
        health_check_period_s=_HEALTH,
        health_check_timeout_s=_HEALTH,
    )
    return deployment.bind(part, batch, batch_wait)


def _require_room(ray: Any, applications: Sequence[Application]) -> None:
    """Raise `BadInput` for a replica that fits on no node of the cluster: Ray would wait for one forever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for _, part, options in applications:
        fits = any(
            options.num_cpus <= node.get("CPU", 0) and options.num_gpus <= node.get("GPU", 0)
            for node in nodes
        )
        if not fits:
            most = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise BadInput(
                f"ray_serve.{part.kind}: a replica takes num_cpus = {options.num_cpus:g} and num_gpus = "
                f"{options.num_gpus:g}, for which no node has room; the nodes have {most}",
                "Add a node (`ray start --address=…`), or lower the numbers.",
            )


def _watched(names: set[str], address: str, report: Callable[[str], None], wait: float) -> ClusterState:
    """Return the state of the cluster once applications are ready; report each change until then."""
    end, shown = time.monotonic() + wait, dict[str, str]()
    while True:
        states = [app for app in _applications() if app.name in names]
        for app in states:
            if shown.get(app.name) != (text := str(app)):
                shown[app.name] = text
                report(text)
        if failed := next((app for app in states if app.status == "DEPLOY_FAILED"), None):
            raise PleinairError(
                f"`{failed.name}` cannot be deployed: {failed.message.strip()}",
                "The same package and the model's files must be on every node; Ray's logs there tell more.",
            )
        if len(states) == len(names) and all(app.is_ready for app in states):
            return status(address)
        if time.monotonic() > end:
            raise PleinairError(
                f"Not ready after {wait:g} s: {'; '.join(shown.values())}.",
                "Ray goes on; `pleinair cluster status` shows how far it is. Is there room on the nodes?",
            )
        time.sleep(_POLL)


def _applications() -> list[ApplicationState]:
    """List the applications of this package."""
    from ray.serve.context import _get_global_client  # the public status has no nodes

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return []
    found = []
    for name, app in client.get_serve_details()["applications"].items():
        for deployment in app["deployments"].values():
            if str(deployment["name"]).startswith(f"{_PREFIX}-"):
                found.append(_application(name, app, deployment))
    return found


def _application(name: str, app: dict[str, Any], deployment: dict[str, Any]) -> ApplicationState:
    replicas = tuple(
        ReplicaState(
            state=replica["state"].value, node=str(replica.get("node_ip") or "?"), pid=replica.get("pid")
        )
        for replica in deployment["replicas"]
    )
    return ApplicationState(
        name=name,
        status=app["status"].value,
        message=str(app["message"] or deployment["message"] or ""),
        wanted=int(deployment["target_num_replicas"]),
        replicas=replicas,
    )
