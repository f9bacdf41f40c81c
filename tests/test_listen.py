"""`sevenfold listen` as a user runs it, with real deliveries and hostile ones."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.ports import free_port
from sevenfold.adapters.webhooks.signatures import sign_headers
from tests.support.processes import until
from tests.support.receivers import SECRET
from tests.support.stack import Stack

SEVENFOLD = Path(sys.executable).with_name("sevenfold")


@dataclass
class Listener:
    process: subprocess.Popen[bytes]
    port: int
    output: Path
    errors: Path

    @property
    def lines(self) -> list[str]:
        return self.output.read_text(encoding="utf-8").splitlines()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"


@contextmanager
def listening(directory: Path, *options: str, secret: str = "", variable: str = "HOOK_SECRET") -> Iterator[Listener]:
    port = free_port()
    output, errors = directory / f"{port}.out", directory / f"{port}.err"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(
            [str(SEVENFOLD), "listen", "--port", str(port), "--secret-env", variable, *options],
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, variable: secret},
        )
    try:
        yield Listener(process, port, output, errors)
    finally:
        process.kill()
        process.wait(10)


async def answers(listener: Listener) -> None:
    def is_listening() -> bool:
        assert listener.process.poll() is None, listener.errors.read_text()
        return "Listening" in listener.errors.read_text()

    await until(is_listening, 20)


async def test_deliveries_of_an_endpoint_are_verified_and_printed(stack: Stack, tmp_path: Path) -> None:
    port = free_port()
    body = {
        "name": "listened",
        "url": f"http://127.0.0.1:{port}/hooks",
        "events": ["started", "progress", "completed"],
    }
    created = (await stack.http.post("/api/agent/webhooks/endpoints", json=body)).json()
    path = f"/api/agent/webhooks/endpoints/{created['id']}"
    with listening(tmp_path, "--json", secret=created["secret"]) as listener:
        await answers(listener)
        await stack.http.patch(path, json={"url": listener.url})
        params = {"seconds": 1.5, "steps": 10}
        run = {"task": "work", "agent": "simulator", "params": params, "webhookEndpoint": "listened"}
        run_id = (await stack.http.post("/api/agent/tasks", json=run)).json()["taskId"]
        await until(lambda: any(json.loads(line)["event"] == "completed" for line in listener.lines), 30)
        assert (await stack.http.post(f"{path}/test")).json()["status"] == 204
        await until(lambda: json.loads(listener.lines[-1])["event"] == "test")
        seen = [json.loads(line) for line in listener.lines]
        assert all(one["valid"] and one["problem"] is None and one["path"] == "/hooks" for one in seen)
        assert [one["sequence"] for one in seen[:-1]] == list(range(1, len(seen)))
        assert seen[0]["event"] == "started"
        assert seen[0]["body"]["taskId"] == run_id
        assert seen[-2]["body"]["status"] == "completed"
        assert created["secret"] not in listener.errors.read_text()
        rotated = (await stack.http.post(f"{path}/rotate", json={"overlapSeconds": 0})).json()
        assert rotated["secret"] != created["secret"]
        answer = (await stack.http.post(f"{path}/test")).json()
        assert (answer["succeeded"], answer["status"]) == (False, 401)
        await until(lambda: not json.loads(listener.lines[-1])["valid"])
        assert "does not match" in json.loads(listener.lines[-1])["problem"]
    await stack.http.delete(path)


async def test_instructions_work_as_printed(stack: Stack, tmp_path: Path) -> None:
    with listening(tmp_path, variable="MADE_UP") as listener:
        await answers(listener)
        printed = listener.errors.read_text()
        shell = "\n".join(line for line in printed.splitlines() if line.startswith("  "))
        shell = shell.replace("localhost:8000", f"127.0.0.1:{stack.settings.port}").replace(
            '"hi"', '"hi", "agent": "echo"'
        )
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-ec", shell], capture_output=True, text=True, timeout=60
        )
        assert "queryId" in done.stdout, done.stderr + shell
        await until(lambda: listener.lines, 20)
        assert re.match(r"\d\d:\d\d:\d\d valid qry_\w+ \{", listener.lines[0])
        listener.process.send_signal(signal.SIGINT)
        assert listener.process.wait(10) == 0
        assert "Traceback" not in listener.errors.read_text()


async def test_hostile_posts_neither_end_it_nor_write_to_the_terminal(tmp_path: Path) -> None:
    with listening(tmp_path, secret=f"other,{SECRET}") as listener:
        await answers(listener)
        body = '{"taskId": "a\\u001b[2J\\nfaked", "n": "\u202e"}'.encode()
        signed = sign_headers([SECRET], "whk_1", int(time.time()), body)
        headers = {**signed, "webhook-event": "x\x1b[31m", "webhook-sequence": "٣"}
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.post(listener.url, content=body, headers=signed)).status_code == 204
            raw = [(name.encode(), value.encode()) for name, value in headers.items() if name != "webhook-event"]
            assert (await http.post(listener.url, content=b"\xff\x00", headers=raw)).status_code == 401
            assert (await http.post(listener.url, content=b"[" * 100_000)).status_code == 401
            assert (await http.get(listener.url)).status_code == 501
            surrogate = b'{"taskId": "\\ud800"}'
            assert (await http.post(listener.url, content=surrogate)).status_code == 401
        with socket.create_connection(("127.0.0.1", listener.port)) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab")
        with socket.create_connection(("127.0.0.1", listener.port)) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
            assert b" 413 " in sock.recv(100)
        with socket.create_connection(("127.0.0.1", listener.port)) as sock:
            sock.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.post(listener.url, content=body, headers=signed)).status_code == 204
        text = listener.output.read_text(encoding="utf-8")
        assert all(line.isprintable() for line in text.splitlines())
        # Each is answered before it is printed, so the next may overtake it.
        shown = next(line for line in listener.lines if "faked" in line)
        assert shown.count("faked") == 2
        assert "Traceback" not in listener.errors.read_text()


async def test_it_ends_when_its_reader_does_and_names_a_taken_port(tmp_path: Path) -> None:
    port = free_port()
    command = f"{SEVENFOLD} listen --port {port} --json | head -n 1"
    piped = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    async with httpx.AsyncClient(trust_env=False) as http:

        async def posts() -> bool:
            try:
                return (await http.post(f"http://127.0.0.1:{port}/", content=b"{}")).status_code == 401
            except httpx.TransportError:
                return False

        await until(posts, 20)
        taken = await asyncio.to_thread(
            subprocess.run,
            [str(SEVENFOLD), "listen", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert taken.returncode == 2
        assert "--port" in taken.stderr
        await asyncio.sleep(0.5)
        await posts()
        output, _ = await asyncio.wait_for(piped.communicate(), 20)
    assert json.loads(output)["valid"] is False
