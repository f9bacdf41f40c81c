"""A failed start prints one message with the remedy, and leaves no process behind."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.process.ports import bind
from sevenfold.runtime.startup import StartupError
from tests.support.fork_server import run_sevenfold
from tests.support.stack import ROOT, children_of, environment, make_settings, sevenfold, until_ready


def refused(command: str, environ: dict[str, str], cwd: Path, *, imports_anew: bool = False) -> str:
    """Runs a command that must not start; returns its output. `imports_anew` is for other packages on PYTHONPATH."""
    if imports_anew:
        done = subprocess.run(
            [sys.executable, "-m", "sevenfold", command],
            env=environ,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )
    else:
        done = run_sevenfold(command, env=environ, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("which", ["port", "temporal_port", "temporal_ui_port"])
def test_taken_port_is_named_with_its_variable(tmp_path: Path, which: str) -> None:
    settings = make_settings(tmp_path, temporal_ui=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", getattr(settings, which)))
        taken.listen()
        message = refused("dev", environment(settings), tmp_path)
    assert f"Port {getattr(settings, which)}" in message
    assert f"SEVENFOLD_{which.upper()}" in message
    nothing_listens(settings.temporal_port if which != "temporal_port" else settings.temporal_ui_port)


def nothing_listens(port: int) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))


def test_missing_server_binary_is_explained(tmp_path: Path) -> None:
    # A Python beside which there is no `temporal`, and an empty PATH.
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [str(python), "-m", "sevenfold", "dev"],
        env={**environment(make_settings(tmp_path)), "PATH": "/nowhere", "PYTHONPATH": f"{ROOT}:{packages}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "make setup" in done.stderr
    assert "TEMPORAL_ADDRESS" in done.stderr


async def test_data_directory_of_another_instance_is_explained(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    (tmp_path / "second").mkdir()
    second = make_settings(tmp_path / "second", data_dir=settings.data_dir)
    with sevenfold("dev", settings) as first:
        await until_ready(settings.port, process=first)
        message = refused("dev", environment(second), tmp_path)
        assert str(first.process.pid) in message
        assert "SEVENFOLD_DATA_DIR" in message
        nothing_listens(second.temporal_port)
        await until_ready(settings.port, process=first)
        assert first.terminate() == 0


def test_broken_database_is_reported_with_the_servers_message(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.data_dir.mkdir(mode=0o700)
    (settings.data_dir / "temporal.db").write_bytes(b"this is not a database" * 1000)
    message = refused("dev", environment(settings), tmp_path)
    assert "not a database" in message
    nothing_listens(settings.temporal_port)


def test_data_directory_that_cannot_be_created_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = make_settings(tmp_path, data_dir=tmp_path / "file" / "data")
    assert "SEVENFOLD_DATA_DIR" in refused("dev", environment(settings), tmp_path)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("default_agent = ", "not valid TOML"),
        ('default_agent = "nobody"', "nobody"),
        ("colour = 1", "colour"),
        ('[agents.x]\nkind = "oracle"', "agents.x"),
        ('[agents.x]\nkind = "python"', "agents.x.target"),
        ('[agents.x]\nkind = "python"\ntarget = "nocolon"', "agents.x.target"),
        ('[agents.x]\nkind = "builtin"\nduration_estimate = -1', "agents.x.duration_estimate"),
        ('[agents."bad name"]\nkind = "builtin"', "bad name"),
    ],
)
def test_every_configuration_mistake_is_reported_with_its_key(tmp_path: Path, toml: str, expected: str) -> None:
    path = tmp_path / "sevenfold.toml"
    path.write_text(toml)
    with pytest.raises(StartupError, match=re.escape(expected)) as message:
        load_config(path)
    assert str(path) in str(message.value)


@pytest.mark.parametrize("command", ["dev", "worker", "api"])
def test_no_process_starts_with_an_invalid_configuration(tmp_path: Path, command: str) -> None:
    settings = make_settings(tmp_path)
    settings.config.write_text('colour = 1\n[agents.x]\nkind = "python"')
    message = refused(command, environment(settings), tmp_path)
    assert "colour" in message
    assert "agents.x.target" in message


def test_all_agents_that_fail_to_load_are_named_with_the_reason(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    (tmp_path / "broken.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "fine.py").write_text("number = 7\ndef three(a, b, c): pass\n")
    settings.config.write_text(
        "\n".join(
            f'[agents.{name}]\nkind = "python"\ntarget = "{target}"'
            for name, target in {
                "one": "no_such_module:agent",
                "two": "broken:agent",
                "three": "fine:missing",
                "four": "fine:number",
                "five": "fine:three",
            }.items()
        )
    )
    message = refused("dev", environment(settings), tmp_path)
    for part in (
        "agent one",
        "no_such_module",
        "agent two",
        "no licence",
        "agent three",
        "missing",
        "agent four",
        "agent five",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SEVENFOLD_PORT", "http"),
        ("SEVENFOLD_PORT", "70000"),
        ("SEVENFOLD_LOG_LEVEL", "loud"),
        ("SEVENFOLD_TASK_QUEUE", ""),
    ],
)
def test_invalid_setting_is_named(tmp_path: Path, variable: str, value: str) -> None:
    assert variable in refused("dev", {**environment(make_settings(tmp_path)), variable: value}, tmp_path)


def test_missing_configuration_file_is_named(tmp_path: Path) -> None:
    environ = {**environment(make_settings(tmp_path)), "SEVENFOLD_CONFIG": "nowhere.toml"}
    assert "nowhere.toml" in refused("dev", environ, tmp_path)


@pytest.mark.parametrize("command", ["dev", "api"])
def test_listening_beyond_loopback_needs_explicit_consent(tmp_path: Path, command: str) -> None:
    message = refused(command, environment(make_settings(tmp_path, host="0.0.0.0")), tmp_path)  # noqa: S104
    assert "SEVENFOLD_ALLOW_ANONYMOUS" in message


@pytest.mark.parametrize("command", ["api", "worker"])
def test_unreachable_temporal_is_explained(tmp_path: Path, command: str) -> None:
    settings = make_settings(tmp_path)
    message = refused(
        command, environment(settings, TEMPORAL_ADDRESS=f"127.0.0.1:{settings.temporal_port}"), tmp_path
    )
    assert "TEMPORAL_ADDRESS" in message


async def test_dev_stops_in_order_and_leaves_no_process(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with sevenfold("dev", settings, "--ui") as running:
        await until_ready(settings.port, process=running)
        assert "/docs" in running.output()
        assert str(settings.temporal_ui_port) in running.output()
        children = children_of(running.process.pid)
        assert children
        assert running.terminate() == 0
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    nothing_listens(settings.port)
    nothing_listens(settings.temporal_port)


def test_listening_sockets_disable_nagle() -> None:
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it each answer took 40 ms more.
    with bind("127.0.0.1", 0, "SEVENFOLD_PORT") as sock:
        assert sock.proto == socket.IPPROTO_TCP
