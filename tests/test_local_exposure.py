"""What a gateway on a laptop shows to other users of the machine, and to whatever reaches its ports."""

import os
import socket
from pathlib import Path

import httpx
import pytest

from tests.support.fork_server import run_sevenfold
from tests.support.stack import (
    children_of,
    environment,
    http_client,
    make_settings,
    running_stack,
    sevenfold,
    until_ready,
)

SECRETS = {
    "SEVENFOLD_SECRET_KEY": "A" * 43 + "=",
    "OPENAI_API_KEY": "sk-planted",
    "AWS_SECRET_ACCESS_KEY": "planted-key",
}


def test_a_data_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.data_dir.mkdir()
    settings.data_dir.chmod(0o755)
    done = run_sevenfold("dev", env=environment(settings), cwd=tmp_path)
    assert done.returncode == 2
    assert f"chmod 700 {settings.data_dir}" in done.stderr


async def test_files_are_the_owners_alone_and_the_server_gets_no_secrets(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    os.umask(0o022)
    with sevenfold("dev", settings, **SECRETS) as running:
        await until_ready(settings.port, process=running)
        async with http_client(settings.port) as http:
            answer = await http.post("/api/agent/query", json={"query": "x" * 300_000})
            assert answer.status_code == 200
        written = [settings.data_dir, *settings.data_dir.rglob("*")]
        assert any("payloads" in str(path) for path in written)
        readable = {str(path): oct(path.stat().st_mode) for path in written if path.stat().st_mode & 0o077}
        assert not readable
        servers = [pid for pid in children_of(running.process.pid) if b"start-dev" in cmdline(pid)]
        assert servers
        for pid in servers:
            inherited = Path(f"/proc/{pid}/environ").read_bytes()
            assert not any(secret.encode() in inherited for secret in SECRETS.values())


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def listening_ports(pid: int) -> set[int]:
    """The TCP ports on which a process listens (Linux)."""
    sockets = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example", "nothing.invalid.evil.example"])
async def test_no_port_of_the_embedded_server_serves_temporals_http_api(tmp_path: Path, host: str) -> None:
    async with running_stack(tmp_path) as stack:
        assert stack.server.pid is not None
        ports = listening_ports(stack.server.pid)
        assert stack.settings.temporal_port in ports
        assert stack.settings.temporal_ui_port not in ports
        asked = 0
        async with httpx.AsyncClient(timeout=3, trust_env=False) as http:
            for port in ports:
                for path in ("/api/v1/namespaces", "/namespaces", "/namespaces/default/workflows"):
                    try:
                        answer = await http.get(f"http://127.0.0.1:{port}{path}", headers={"Host": f"{host}:{port}"})
                    except httpx.HTTPError:
                        continue  # it speaks gRPC alone
                    asked += 1
                    assert "namespaceInfo" not in answer.text, (port, path)
                    assert answer.status_code in (400, 403, 404, 405, 415, 501), (port, path, answer.status_code)
        assert asked


async def test_the_temporal_ui_starts_when_asked_for(tmp_path: Path) -> None:
    async with running_stack(tmp_path, temporal_ui=True) as stack:
        with socket.create_connection(("127.0.0.1", stack.settings.temporal_ui_port), 2):
            pass
        run_id = (await stack.query()).json()["queryId"]
        link = (await stack.run(run_id))["links"]["temporalUi"]  # type: ignore[index]
        ui = f"http://127.0.0.1:{stack.settings.temporal_ui_port}"
        assert link == f"{ui}/namespaces/default/workflows/default%3A{run_id}"
