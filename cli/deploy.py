"""`sevenfold deploy`: which build of the workers gets new runs (Temporal's Worker Versioning)."""

from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Show and change which build of the workers gets new runs. Reads the variables of the workers: "
    "TEMPORAL_ADDRESS, SEVENFOLD_TASK_QUEUE, SEVENFOLD_DEPLOYMENT_NAME.",
    no_args_is_help=True,
)


def _check_name(name: str | None) -> str | None:
    if name is not None and not name.strip():
        raise typer.BadParameter("it is empty")
    return name


BuildId = Annotated[str, typer.Argument(help="The SEVENFOLD_BUILD_ID of the workers.", callback=_check_name)]
AllowNoWorkers = Annotated[
    bool, typer.Option("--allow-no-workers", help="Even if no worker of the build polls: new runs then wait for one.")
]


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Shows the builds, their workers and open workflows, and where new runs go."""
    _run("show_status", as_json=as_json)


@app.command()
def current(
    build_id: Annotated[
        str | None, typer.Argument(help="The SEVENFOLD_BUILD_ID of the workers.", callback=_check_name)
    ] = None,
    unversioned: Annotated[
        bool, typer.Option("--unversioned", help="Workers without a build id, instead of a build.")
    ] = False,
    allow_no_workers: AllowNoWorkers = False,
) -> None:
    """Sends all new runs to a build, and entities with their next task. Ends a ramp."""
    if (build_id is None) != unversioned:
        raise typer.BadParameter("name a build id, or --unversioned")
    _run("make_current", build_id=build_id, allow_no_workers=allow_no_workers)


@app.command()
def ramp(
    build_id: BuildId,
    percent: Annotated[float, typer.Option(min=0, max=100, help="The share of new runs; 0 ends the ramp.")],
    allow_no_workers: AllowNoWorkers = False,
) -> None:
    """Sends a share of the new runs to a build."""
    _run("ramp_build", build_id=build_id, percent=percent, allow_no_workers=allow_no_workers)


@app.command()
def rollback(
    build_id: Annotated[
        str | None,
        typer.Argument(help="The build to leave. Named, the command may be repeated.", callback=_check_name),
    ] = None,
    allow_no_workers: AllowNoWorkers = False,
) -> None:
    """Ends a ramp; without one, sends new runs to the build that was current before."""
    _run("roll_back", build_id=build_id, allow_no_workers=allow_no_workers)


def _run(name: str, **options: Any) -> None:
    # Imported on use: it takes half a second, which the other commands need not wait for.
    from sevenfold.cli import deployment  # noqa: PLC0415
    from sevenfold.runtime.process.stopping import hard_exit  # noqa: PLC0415

    # The SDK's threads may still run: a normal exit of the interpreter would abort.
    hard_exit(deployment.run(getattr(deployment, name), **options))
