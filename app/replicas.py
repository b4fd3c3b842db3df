"""What the settings have Ray Serve hold: deployed, listed and removed on the cluster of `cluster.ray`."""

from __future__ import annotations

from collections.abc import Callable

from pleinair.app.engines import check, with_second
from pleinair.app.parts import declared
from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.cluster.deployments import Application, ClusterState
from pleinair.tools.cluster.deployments import deploy as deploy_applications
from pleinair.tools.cluster.deployments import remove as remove_applications
from pleinair.tools.cluster.deployments import status as cluster_status
from pleinair.tools.cluster.ray_serve import Part, ReplicaOptions, Served, app_name
from pleinair.tools.types import BadInput


def applications(settings: Settings) -> list[Application]:
    """Return what is to be deployed, with the second encoder if any; raise `BadInput` for nothing."""
    check(settings)
    found = []
    if options := settings.ray_serve.generator:
        found.append(_application("generator", settings.generator, options))
    if options := settings.ray_serve.encoder:
        found.append(_application("encoder", settings.encoder, options))
        if second := settings.retrieval.second:
            other = with_second(settings, second).ray_serve.encoder
            found.append(_application("encoder", second, other or options))
    if not found:
        raise BadInput(
            "ray_serve has no table, so that there is nothing to deploy",
            "Write a table [ray_serve.generator] or [ray_serve.encoder] into pleinair.toml or a profile: "
            "docs/cluster.md.",
            field="ray_serve",
        )
    return found


def deploy(settings: Settings, report: Callable[[str], None], wait: float) -> ClusterState:
    """Deploy what the settings have; arguments and errors as of `deployments.deploy`."""
    return deploy_applications(settings.cluster.ray, applications(settings), report, wait)


def status(settings: Settings) -> ClusterState:
    """Return the nodes of the cluster and the applications of this program on it."""
    return cluster_status(settings.cluster.ray)


def remove(settings: Settings, report: Callable[[str], None]) -> list[str]:
    """Remove the applications that the settings have, and return the names of those that there were."""
    names = [application.name for application in applications(settings)]
    return remove_applications(settings.cluster.ray, names, report)


def _application(kind: Served, choice: BackendChoice, options: ReplicaOptions) -> Application:
    declared(kind, choice)
    return Application(app_name(kind, options), Part.of(kind, choice.backend, choice.arguments), options)
