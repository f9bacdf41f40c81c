"""The reverse proxies of docs/deployment.md, started with the page's own configurations on free ports."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.ports import free_port
from tests.support.certificates import Certificate
from tests.support.markdown import Page
from tests.support.stack import ROOT

NAME = "agents.example.com"
# Debian's nginx is where the PATH of ordinary users does not lead.
_PATH = f"{os.environ['PATH']}:/usr/sbin"
_LANGUAGES = {"nginx": "nginx", "caddy": "caddyfile", "envoy": "yaml"}


@dataclass(frozen=True)
class ReverseProxy:
    """A running proxy and the directory of its logs."""

    port: int
    directory: Path

    def logs(self) -> str:
        return "".join(file.read_text(errors="replace") for file in sorted(self.directory.glob("*.log")))


def is_installed(kind: str) -> bool:
    return shutil.which(kind, path=_PATH) is not None


@contextmanager
def running_proxy(kind: str, upstream: int, certificate: Certificate, directory: Path) -> Iterator[ReverseProxy]:
    """Runs a proxy in front of the API at a port. `kind`: its command."""
    port = free_port()
    example = _example(kind).replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    directory.mkdir(parents=True)
    command = {"nginx": _nginx, "caddy": _caddy, "envoy": _envoy}[kind](
        example, port, upstream, certificate, directory
    )
    environment = {**os.environ, "PATH": _PATH, "HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    with (directory / "output.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=directory, env=environment)
    proxy = ReverseProxy(port, directory)
    try:
        _wait_until_listening(process, proxy)
        yield proxy
    finally:
        process.terminate()
        process.wait(20)


def _example(kind: str) -> str:
    (block,) = [block for block in Page(ROOT / "docs" / "deployment.md").blocks if block.language == _LANGUAGES[kind]]
    return block.text


def _replace(text: str, old: str, new: str) -> str:
    assert old in text, f"docs/deployment.md has no {old!r}"
    return text.replace(old, new)


def _nginx(example: str, port: int, _: int, certificate: Certificate, directory: Path) -> list[str]:
    example = _replace(example, "listen 443", f"listen 127.0.0.1:{port}")
    example = _replace(example, "/etc/ssl/sevenfold/server.crt", str(certificate.cert))
    example = _replace(example, "/etc/ssl/sevenfold/server.key", str(certificate.key))
    example = _replace(example, "/var/log/nginx/", f"{directory}/")
    temporary = "".join(
        f"{name}_temp_path {directory}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.getuid() == 0 else ""
    main = f"{user} worker_processes 1; pid {directory}/pid; events {{}} http {{\n{temporary}{example}\n}}\n"
    (directory / "nginx.conf").write_text(main)
    log = str(directory / "start.log")
    return ["nginx", "-e", log, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-g", "daemon off;"]


def _caddy(example: str, port: int, _: int, certificate: Certificate, directory: Path) -> list[str]:
    tls = f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate.cert} {certificate.key}"
    example = _replace(example, f"{NAME} {{", tls)
    example = _replace(
        example, "{\n\t# The default", "{\n\tadmin off\n\tauto_https disable_redirects\n\t# The default"
    )
    (directory / "Caddyfile").write_text(example)
    return ["caddy", "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


def _envoy(example: str, port: int, upstream: int, certificate: Certificate, directory: Path) -> list[str]:
    example = _replace(example, "address: 0.0.0.0, port_value: 443", f"address: 127.0.0.1, port_value: {port}")
    example = _replace(example, "port_value: 8000", f"port_value: {upstream}")
    example = _replace(example, "/etc/ssl/sevenfold/server.crt", str(certificate.cert))
    example = _replace(example, "/etc/ssl/sevenfold/server.key", str(certificate.key))
    (directory / "envoy.yaml").write_text(example)
    return ["envoy", "-c", str(directory / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id"]


def _wait_until_listening(process: subprocess.Popen[bytes], proxy: ReverseProxy) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, proxy.logs()
        assert time.monotonic() < deadline, proxy.logs()
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", proxy.port)) == 0:
                return
        time.sleep(0.05)
