"""Starts `sevenfold` processes by fork from one that has imported the product, because an import takes a second of
processor time. What such a process is otherwise differs in nothing from `sevenfold …`: environment, folder, output,
signals, and no thread or event loop before the fork.

As a program (`python -m tests.support.fork_server <fd>`), it is that process.
"""

import array
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parents[2]


class ForkedProcess:
    """Like `subprocess.Popen`, as far as tests use it."""

    def __init__(self, pid: int, server: "ForkServer") -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            self.returncode = self._server.reap(self.pid)
            os.close(self._pidfd)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code when the process has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("sevenfold", timeout or 0)
            select.select([self._pidfd], [], [], 0.05)
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The client of the process that forks; one per test process, started on first use."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        theirs.close()
        self._lock = threading.Lock()  # one question and its answer at a time

    def start(
        self,
        arguments: list[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: IO[bytes],
        errors: IO[bytes] | None = None,
    ) -> ForkedProcess:
        """Starts `sevenfold <arguments>`; errors go to the output unless they have a file of their own."""
        request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd)}
        return ForkedProcess(self._ask(request, output.fileno(), (errors or output).fileno()), self)

    def reap(self, pid: int) -> int:
        """Returns the exit code of a process that has ended."""
        return self._ask({"reap": pid}, 1, 2)

    def _ask(self, request: dict[str, object], *fds: int) -> int:
        # The length goes with the descriptors; the request may be longer than one packet.
        body = json.dumps(request).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        with self._lock:
            self._socket.sendmsg([len(body).to_bytes(4)], rights)
            self._socket.sendall(body)
            return int.from_bytes(_read(self._socket, 4), signed=True)


_server: ForkServer | None = None


def fork_server() -> ForkServer:
    """Returns the fork server of this test process."""
    global _server
    if _server is None:
        _server = ForkServer()
    return _server


def run_sevenfold(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs `sevenfold <arguments>` to its end, without input; in this process's environment if none is given."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = fork_server().start(
            list(arguments), env=os.environ if env is None else env, cwd=cwd, output=output, errors=errors
        )
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(
            ["sevenfold", *arguments], code, output.read().decode(), errors.read().decode()
        )


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _serve(connection: socket.socket) -> NoReturn:
    from sevenfold.cli import servers  # noqa: F401, PLC0415
    from sevenfold.cli.main import main  # noqa: PLC0415

    while True:
        length, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(8))
        if not length:  # The test process has ended.
            sys.exit(0)
        output, errors = array.array("i", ancillary[0][2])
        request = json.loads(_read(connection, int.from_bytes(length)))
        if "reap" in request:
            os.close(output)
            os.close(errors)
            _, status = os.waitpid(request["reap"], 0)
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, signed=True))
            continue
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(request, output, errors)
            main()
            sys.exit(0)
        os.close(output)
        os.close(errors)
        connection.sendall(pid.to_bytes(4, signed=True))


def _become(request: dict[str, object], output: int, errors: int) -> None:
    """Takes the request's output, folder, environment and arguments; it has no input."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[arg-type]
    sys.argv = ["sevenfold", *request["arguments"]]  # type: ignore[misc]
    random.seed()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
