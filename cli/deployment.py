"""What `sevenfold deploy` does. Importing it takes half a second, so only that command does."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from temporalio.client import Client
from temporalio.service import RPCError

from sevenfold.adapters.temporal.deployments import Deployment, DeploymentError, Deployments
from sevenfold.adapters.temporal.pollers import count_workers
from sevenfold.adapters.temporal.task_queues import read_routing
from sevenfold.runtime.config.settings import load_settings
from sevenfold.runtime.startup import StartupError
from sevenfold.runtime.temporal.connection import connect_without_payloads


@dataclass(frozen=True)
class DeploymentTarget:
    """The deployment that a command is for."""

    client: Client
    task_queue: str
    deployments: Deployments

    async def count_workers(self) -> dict[str | None, int]:
        """Returns the number of workers by build id; None counts those without one."""
        found = await count_workers(self.client, self.task_queue)
        return {build.build_id if build else None: count for build, count in found.items()}


# Time in which workers that have just started poll.
_START_SECONDS, _PAUSE_SECONDS = 5.0, 0.5

Command = Callable[..., Coroutine[Any, Any, None]]


def run(command: Command, **options: Any) -> int:
    """Runs a command against the Temporal of the environment. Returns the exit code; 2 after a message on stderr."""
    try:
        asyncio.run(_run(command, **options))
    except (StartupError, DeploymentError) as error:
        typer.echo(str(error), err=True)
    except RPCError as error:
        typer.echo(
            f"Temporal answers: {error.message.rstrip('.')}. Check TEMPORAL_ADDRESS and the namespace.", err=True
        )
    except TimeoutError:
        typer.echo(
            "Temporal has taken the change, but not all task queues follow yet. See: sevenfold deploy status",
            err=True,
        )
    else:
        return 0
    return 2


async def _run(command: Command, **options: Any) -> None:
    settings = load_settings()
    client = await connect_without_payloads(settings)
    target = DeploymentTarget(client, settings.task_queue, Deployments(client, settings.deployment))
    await _check_owner(target, settings.deployment)
    await command(target, **options)


async def _check_owner(target: DeploymentTarget, name: str) -> None:
    """Raises DeploymentError if the task queue follows another deployment than the one that is named."""
    routing = await read_routing(target.client, target.task_queue)
    for build in (routing.current, routing.ramping):
        if build is not None and build.deployment_name != name:
            raise DeploymentError(
                f"The task queue {target.task_queue} follows the deployment {build.deployment_name} (build "
                f"{build.build_id}), not {name}: set SEVENFOLD_DEPLOYMENT_NAME={build.deployment_name}."
            )


async def show_status(target: DeploymentTarget, *, as_json: bool) -> None:
    """Prints each build with its workers and open workflows."""
    found = await target.deployments.read()
    workers = await target.count_workers()
    open_workflows = await asyncio.gather(
        *(target.deployments.count_open_workflows(one.build_id) for one in found.builds)
    )
    builds = list(zip(found.builds, open_workflows, strict=True))
    if as_json:
        rows = [
            {
                "buildId": one.build_id,
                "status": one.status,
                "since": one.since and one.since.isoformat(timespec="seconds"),
                "workers": workers.get(one.build_id, 0),
                "openWorkflows": count,
            }
            for one, count in builds
        ]
        routing = {"current": found.current, "ramping": found.ramping, "rampPercent": found.ramp_percent}
        report = {
            "deployment": found.name,
            **routing,
            "workersWithoutBuildId": workers.get(None, 0),
            "runsWait": bool(_find_waiting(found, workers)),
            "builds": rows,
        }
        typer.echo(json.dumps(report, indent=2))
        return
    table = Table("build", "status", "since (UTC)", title=f"Deployment {found.name}")
    for name in ("workers", "open workflows"):
        table.add_column(name, justify="right")
    for one, count in builds:
        since = f"{one.since:%Y-%m-%d %H:%M:%S}" if one.since else ""
        table.add_row(one.build_id, one.status, since, str(workers.get(one.build_id, 0)), str(count))
    table.add_row("(none)", "" if found.current else "current", "", str(workers.get(None, 0)), "")
    Console().print(table, _describe_routing(found), *_find_waiting(found, workers))


def _find_waiting(found: Deployment, workers: Mapping[str | None, int]) -> list[str]:
    """Returns a sentence for each build that gets new runs and has no worker."""
    unserved = (one for one in found.targets if not workers.get(one))
    return [f"No worker polls for {_name_build(one)}: its runs wait." for one in unserved]


async def make_current(target: DeploymentTarget, *, build_id: str | None, allow_no_workers: bool) -> None:
    """Sends all new runs to a build, or to workers without a build id (None)."""
    await _check_workers(target, build_id, allow_no_workers=allow_no_workers)
    await target.deployments.set_current(build_id, allow_no_workers=allow_no_workers)
    await _print_routing(target)


async def ramp_build(target: DeploymentTarget, *, build_id: str, percent: float, allow_no_workers: bool) -> None:
    """Sends a share of the new runs to a build; 0 ends its ramp."""
    found = await target.deployments.read()
    if found.current == build_id:
        raise DeploymentError(f"Build {build_id} is current: it gets all new runs that no other build ramps for.")
    if percent > 0:
        await _check_workers(target, build_id, allow_no_workers=allow_no_workers)
        await target.deployments.set_ramp(build_id, percent, allow_no_workers=allow_no_workers)
    elif found.has_ramp:
        if found.ramping != build_id:
            raise DeploymentError(f"Build {build_id} does not ramp; build {found.ramping} does.")
        await target.deployments.set_ramp(None, 0)
    await _print_routing(target)


async def roll_back(target: DeploymentTarget, *, build_id: str | None, allow_no_workers: bool) -> None:
    """Ends a ramp, or makes the previous build current again. With `build_id`, only if that build ramps or is
    current: repeated, it changes nothing.
    """
    found = await target.deployments.read()
    if build_id is not None:
        _check_known(found, build_id)
    if found.has_ramp and build_id in (None, found.ramping):
        await target.deployments.set_ramp(None, 0)
    elif not found.was_ever_changed:
        raise DeploymentError(f"No build of the deployment {found.name} has ever been current: nothing to roll back.")
    elif build_id in (None, found.current):
        await _check_workers(target, found.previous, allow_no_workers=allow_no_workers)
        await target.deployments.set_current(found.previous, allow_no_workers=allow_no_workers, token=found.token)
    else:
        typer.echo(f"Build {build_id} gets no new runs: nothing to do.")
    await _print_routing(target)


def _check_known(found: Deployment, build_id: str) -> None:
    """Raises DeploymentError if no worker of the build has ever polled."""
    known = sorted(one.build_id for one in found.builds)
    if build_id not in known:
        names = ", ".join(known) or "none"
        raise DeploymentError(f"The deployment {found.name} has no build {build_id}. It has: {names}.")


async def _check_workers(target: DeploymentTarget, build_id: str | None, *, allow_no_workers: bool) -> None:
    """Raises DeploymentError if new runs would wait, because no worker of the build polls. Workers may just start."""
    if allow_no_workers:
        if build_id is not None:  # Temporal would take any name, and send the runs elsewhere.
            _check_known(await target.deployments.read(), build_id)
        return
    deadline = time.monotonic() + _START_SECONDS
    is_announced = False
    while not (workers := await target.count_workers()).get(build_id):
        if time.monotonic() > deadline:
            others = ", ".join(sorted(name or "(none)" for name in workers)) or "none"
            way_out = next((f" Or: sevenfold deploy current {name}." for name in sorted(filter(None, workers))), "")
            raise DeploymentError(
                f"No worker polls the task queue {target.task_queue} for {_name_build(build_id)}; new runs would "
                f"wait. Builds with workers: {others}. Start one, or add --allow-no-workers.{way_out}"
            )
        if not is_announced:
            typer.echo(f"Waiting for a worker: {_name_build(build_id)}.", err=True)
        is_announced = True
        await asyncio.sleep(_PAUSE_SECONDS)


async def _print_routing(target: DeploymentTarget) -> None:
    typer.echo(_describe_routing(await target.deployments.read()))


def _describe_routing(found: Deployment) -> str:
    current = _name_build(found.current)
    if not found.has_ramp:
        return f"New runs go to {current}."
    percent = found.ramp_percent
    return f"New runs go to {current} ({100 - percent:g} %) and {_name_build(found.ramping)} ({percent:g} %)."


def _name_build(build_id: str | None) -> str:
    return "workers without a build id" if build_id is None else f"build {build_id}"
