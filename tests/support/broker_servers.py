"""Real brokers on free ports of this machine; what they hold outlives a restart."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from bench.ports import free_port
from tests.support.aws_server import Aws
from tests.support.stack import ROOT

_LOOPBACK = "127.0.0.1"


class Server:
    """A server as a process of its own."""

    command = ""
    scheme = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"{self.scheme}://{_LOOPBACK}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str] | None:
        return None

    def greeted(self) -> bool:
        """Whether it answers."""
        with socket.create_connection((_LOOPBACK, self.port), 1):
            return True

    def start(self) -> None:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.arguments(), env=self.environment(), stdout=log, stderr=log, cwd=self.directory
            )
        until = time.monotonic() + 180
        while True:
            with suppress(OSError):
                if self.greeted():
                    return
            assert time.monotonic() < until, (self.directory / "server.log").read_text()
            assert self._process.poll() is None, (self.directory / "server.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    close = stop


class Nats(Server):
    command = "nats-server"
    scheme = "nats"

    def arguments(self) -> list[str]:
        return [self.command, "-js", "-sd", str(self.directory), "-a", _LOOPBACK, "-p", str(self.port)]


class Redis(Server):
    command = "redis-server"
    scheme = "redis"

    def arguments(self) -> list[str]:
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return [self.command, "--bind", _LOOPBACK, "--port", str(self.port), "--dir", str(self.directory), *durable]

    def greeted(self) -> bool:
        with socket.create_connection((_LOOPBACK, self.port), 1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith(b"+PONG")


class Rabbit(Server):
    command = "rabbitmq-server"
    scheme = "amqp"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._names = free_port()
        self._distribution = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        (directory / "enabled_plugins").write_text("[].\n")
        (directory / "rabbitmq.conf").write_text(
            "log.console = true\nlog.file = false\nvm_memory_high_watermark.absolute = 256MiB\n"
            "disk_free_limit.absolute = 50MB\n"
        )

    def arguments(self) -> list[str]:
        # Debian's wrapper of that name wants a user of its own.
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]

    def environment(self) -> dict[str, str]:
        at = self.directory
        quiet = "+sbwt none +sbwtdcpu none +sbwtdio none +S 2:2 +A 4"
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(at),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": _LOOPBACK,
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": _LOOPBACK,
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": f"{at}/mnesia",
            "RABBITMQ_LOG_BASE": f"{at}/log",
            "RABBITMQ_PID_FILE": f"{at}/pid",
            "RABBITMQ_CONFIG_FILE": f"{at}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{at}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{at}/conf",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{at}/flags",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{127,0,0,1}} {quiet}",
        }

    def greeted(self) -> bool:
        with socket.create_connection((_LOOPBACK, self.port), 1) as sock:
            sock.sendall(b"AMQP\x00\x00\x09\x01")
            return sock.recv(7)[:1] == b"\x01"

    def start(self) -> None:
        if self._epmd is None:
            self._epmd = subprocess.Popen(
                ["epmd", "-port", str(self._names), "-address", _LOOPBACK],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        super().start()

    def close(self) -> None:
        self.stop()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait(10)


class Kafka:
    """librdkafka's own cluster, which speaks Kafka's protocol, in a process of its own. To stop it is to have it
    refuse connections: it keeps what it holds.
    """

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.broker_servers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._process.stdout is not None
        self.url = str(json.loads(self._process.stdout.readline()))
        self.topics: set[str] = set()

    def start(self) -> None:
        self._send("up")

    def stop(self) -> None:
        self._send("down")

    def topic(self, name: str) -> None:
        self._send(f"create {name}")

    def refuse_commits(self, count: int) -> None:
        """Answers the next commits of offsets with an error, as a broker does whose permissions have just changed."""
        self._send(f"refuse {count}")

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdout.readline()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(10)


KINDS = {"nats": Nats, "rabbitmq": Rabbit, "redis": Redis, "kafka": Kafka, "sqs": Aws}


def broker_section(kind: str, url: str) -> str:
    """The beginning of a broker's configuration, named after its kind. AWS is found by its own variables."""
    address = "" if kind == "sqs" else f'url = "{url}"\n'
    return f'[brokers.{kind}]\nkind = "{kind}"\n{address}'


@contextmanager
def broker_server(kind: str, directory: Path, *topics: str) -> Iterator[Server | Kafka | Aws]:
    """A broker that runs while the block does; with these topics or queues, where they have to be created first."""
    made = KINDS[kind]
    command = getattr(made, "command", None)
    if command is not None and shutil.which(command) is None and not os.environ.get("CI"):
        pytest.skip(f"there is no {command}: make system-packages")
    directory.mkdir(exist_ok=True)
    server = made(directory)
    server.start()
    try:
        for topic in topics if isinstance(server, Kafka | Aws) else ():
            server.topic(topic)
        yield server
    finally:
        server.close()


# Kafka's numbers of a request and of an error.
_OFFSET_COMMIT, _NOT_AUTHORIZED = 8, 29


def _serve_kafka() -> None:
    """The cluster's process: `create TOPIC`, `refuse COUNT`, `down` and `up` on standard input, whose end is its
    own.
    """
    (path,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    library = ctypes.CDLL(str(path))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    shapes: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_push_request_errors_array": (None, [pointer, ctypes.c_int16, ctypes.c_size_t, pointer]),
    }
    for name, (result, arguments) in shapes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    handle = library.rd_kafka_new(0, library.rd_kafka_conf_new(), ctypes.create_string_buffer(512), 512)
    cluster = library.rd_kafka_mock_cluster_new(handle, 1)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 100)
    print(json.dumps(library.rd_kafka_mock_cluster_bootstraps(cluster).decode()), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["create", name]:
                library.rd_kafka_mock_topic_create(cluster, name.encode(), 2, 1)
            case ["refuse", count]:
                errors = (ctypes.c_int * int(count))(*[_NOT_AUTHORIZED] * int(count))
                library.rd_kafka_mock_push_request_errors_array(cluster, _OFFSET_COMMIT, int(count), errors)
            case ["down"]:
                library.rd_kafka_mock_broker_set_down(cluster, 1)
            case ["up"]:
                library.rd_kafka_mock_broker_set_up(cluster, 1)
        print("done", flush=True)


if __name__ == "__main__":
    _serve_kafka()
