"""Every command, with its arguments and options, as `--help` has them."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer.main
from markdown_tables import table

from sevenfold.cli.main import app

_TYPES = {int: "NUMBER", float: "NUMBER", Path: "PATH"}


def describe() -> str:
    """Returns a section for each command."""
    root: Any = typer.main.get_command(app)
    return "\n".join(_describe(["sevenfold", *path], command) for path, command in _walk([], root) if path)


def _walk(path: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    """Yields all commands that are not hidden, by their names, groups before what they hold."""
    if command.hidden:
        return
    yield path, command
    for name, one in sorted(getattr(command, "commands", {}).items()):
        yield from _walk([*path, name], one)


def _describe(path: list[str], command: Any) -> str:
    parameters = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    rows = [_row(one) for one in parameters]
    shown = "\n" + table(("argument or option", "default", "meaning"), rows) if rows else ""
    help_text = " ".join((command.help or "").split())
    return f"### `{' '.join(path)}`\n\n{help_text}\n{shown}"


def _row(parameter: Any) -> tuple[str, str, str]:
    is_argument = parameter.param_type_name == "argument"
    name = parameter.name.upper() if is_argument else ", ".join(parameter.opts)
    takes = "" if is_argument or getattr(parameter, "is_flag", False) else f" {_type(parameter)}"
    more = "…" if parameter.nargs == -1 or getattr(parameter, "multiple", False) else ""
    return f"`{name}{takes}{more}`", _default(parameter), _meaning(parameter)


def _type(parameter: Any) -> str:
    """What an option takes: a choice shows its values."""
    kind = parameter.type_descriptor.annotation
    kind = next(iter(get_args(kind)), kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "/".join(one.value for one in kind)
    return _TYPES.get(kind, "TEXT")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, False, (), []) or callable(parameter.default):
        return "none"
    # The address depends on the environment in which this runs.
    return "this machine" if parameter.name == "url" else f"`{parameter.default}`"


def _meaning(parameter: Any) -> str:
    variable = getattr(parameter, "envvar", None)
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"{text} Variable: `{variable}`." if variable else text
