"""`pleinair cluster`: deploy generators and encoders to Ray Serve, see where they run, remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Json, Profile, Setting
from pleinair.app.cli.terminal import explained, leave, quiet, say
from pleinair.app.texts import counted, printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.settings import Settings
    from pleinair.tools.cluster.deployments import ClusterState

cluster_app = typer.Typer(
    help="Deploy a profile's generator and encoder to a Ray cluster: docs/cluster.md.",
    no_args_is_help=True,
    callback=quiet,
)

Wait = Annotated[
    float, typer.Option(min=1, help="Seconds until the command no longer waits; Ray then goes on by itself.")
]


@cluster_app.command()
def deploy(profile: Profile = None, setting: Setting = None, wait: Wait = 1800) -> None:
    """Deploy what [ray_serve.generator] and [ray_serve.encoder] describe, and wait until it answers.

    The cluster is that of cluster.ray. The same command again replaces what has changed: replicas that draw
    finish their images first.
    """
    with explained():
        from pleinair.app import replicas

        _show(replicas.deploy(_settings(profile, setting), _report, wait))


@cluster_app.command()
def status(profile: Profile = None, setting: Setting = None, as_json: Json = False) -> None:
    """Print nodes, applications and replicas; exit with 1 if an application is not ready.

    Replicas below min_replicas that are missing, such as after the death of a node, count as not ready.
    """
    with explained():
        from pleinair.app import replicas

        state = replicas.status(_settings(profile, setting))
        if as_json:
            typer.echo(printable_json(state.model_dump(mode="json")))
        else:
            _show(state)
    if not all(application.is_ready for application in state.applications):
        leave("failed")


@cluster_app.command()
def remove(profile: Profile = None, setting: Setting = None) -> None:
    """Remove the applications of the profile from the cluster; its nodes and other applications stay."""
    with explained():
        from pleinair.app import replicas

        removed = replicas.remove(_settings(profile, setting), _report)
        say(f"removed: {', '.join(removed)}" if removed else "Nothing of this profile was deployed.")


def _settings(profile: str | None, setting: list[str] | None) -> Settings:
    from pleinair.app.settings import assignments, load

    return load(profile, assignments(setting))


def _report(text: str) -> None:
    say(printable(text), err=True, indent=2)


def _show(state: ClusterState) -> None:
    alive = [node for node in state.nodes if node.alive]
    dead = len(state.nodes) - len(alive)
    say(counted(len(alive), "node") + f", {dead} dead" * bool(dead))
    for node in alive:
        say(
            f"  {node.address}  {counted(round(node.cpus), 'CPU')}, {counted(round(node.gpus), 'GPU')}",
            indent=4,
        )
    for application in state.applications:
        say(printable(str(application)), indent=2)
        for replica in application.replicas:
            say(f"  {replica.state}  {replica.node}, process {replica.pid or 'not there yet'}", indent=4)
    if not state.applications:
        say("Nothing is deployed: `pleinair cluster deploy`.")
