"""The package as users get it: one import package, installed from a wheel that was built from the source archive."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import sevenfold as package
from bench.ports import free_port
from sevenfold.adapters.agents.loading import AgentLoadError, load_agents
from sevenfold.contracts.agents.config import PythonAgentConfig
from tests.support.stack import ROOT, Sevenfold, until_ready

BIN = Path(sys.executable).parent  # not resolved: the virtual environment's own

# What the gateway's own rooms are called: any project may have packages of these names.
ROOMS = ("api", "contracts", "workflows", "activities", "worker", "cli", "adapters", "runtime", "connector")

AGENT = f"""
import {", ".join(ROOMS)}
from sevenfold import AgentContext, AgentRequest, Delta, Reply

async def answer(request: AgentRequest, context: AgentContext):
    yield Delta(text="own: ")
    yield Reply(response="own: " + " ".join(room.WORD for room in ({", ".join(ROOMS)})))
"""


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Runs a command that has to succeed, without the variables of this process that Python or Sevenfold reads."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean(**environ), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean(**more: str) -> dict[str, str]:
    """The environment of somebody who has installed Sevenfold and set nothing."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SEVENFOLD_", "TEMPORAL_", "PYTHON"))}
    return {**kept, "PATH": f"{BIN}:{kept.get('PATH', '')}", **more}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source archive, as package indexes and distributions build it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out, cwd=ROOT)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(out / "unpacked", filter="data")
    (source,) = (out / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's `bin`: it holds the wheel, and sees this environment's libraries but not the checkout."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run(BIN / "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    # Listed in a .pth file, a folder's own .pth files are not read: the editable install stays out.
    (site / "libraries.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return home / "bin"


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.split("/")[0] for name in names} == {"sevenfold", metadata}
    assert "sevenfold/py.typed" in names
    rooms = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + [
        ROOT / "worker.py",
        ROOT / "connector.py",
    ]
    assert len(rooms) > 200
    assert {f"sevenfold/{path.relative_to(ROOT)}" for path in rooms} <= names
    described = zipfile.ZipFile(wheel).read(f"{metadata}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in described
    assert f"{metadata}/licenses/LICENSE" in names


def test_direct_build_and_git_archive_build_hold_the_same_files(wheel: Path, tmp_path: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "direct", cwd=ROOT)
    (direct,) = (tmp_path / "direct").glob("*.whl")
    assert set(zipfile.ZipFile(direct).namelist()) == packed
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    run("git", "archive", "--format=tar", "-o", tmp_path / "head.tar", "HEAD", cwd=ROOT)
    with tarfile.open(tmp_path / "head.tar") as tar:
        tar.extractall(tmp_path / "head", filter="data")
    if not (tmp_path / "head" / "sevenfold").exists():
        pytest.skip("the package is not committed")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "archive", cwd=tmp_path / "head")
    (archived,) = (tmp_path / "archive").glob("*.whl")
    assert "sevenfold/api/app.py" in zipfile.ZipFile(archived).namelist()


def test_installation_adds_one_import_name(installed: Path, tmp_path: Path) -> None:
    found = run(
        installed / "python",
        "-c",
        f"import importlib.util as u, sevenfold; print([n for n in {ROOMS} if u.find_spec(n)], sevenfold.__file__)",
        cwd=tmp_path,
    )
    assert found.startswith("[] "), found
    assert str(installed.parent) in found
    assert run(installed / "sevenfold", "--version", cwd=tmp_path) == f"sevenfold {package.__version__}\n"
    assert run(installed / "python", "-m", "sevenfold", "--version", cwd=tmp_path).startswith("sevenfold ")


@contextmanager
def dev(installed: Path, folder: Path) -> Iterator[tuple[Sevenfold, int]]:
    """`sevenfold dev` in a user's folder, with nothing set but the ports."""
    port = free_port()
    ports = {
        "SEVENFOLD_PORT": port,
        "SEVENFOLD_TEMPORAL_PORT": free_port(),
        "SEVENFOLD_TEMPORAL_UI_PORT": free_port(),
    }
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(installed / "sevenfold"), "dev"],
            cwd=folder,
            env=clean(**{name: str(value) for name, value in ports.items()}),
            stdout=output,
            stderr=output,
        )
    running = Sevenfold(process, log)
    try:
        yield running, port
        assert running.terminate() == 0, running.output()
    finally:
        if process.poll() is None:
            running.kill()


async def test_dev_in_a_users_folder_whose_packages_are_named_like_our_rooms(installed: Path, tmp_path: Path) -> None:
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"WORD = {room!r}\n")
    (tmp_path / "contracts" / "agent.py").write_text(AGENT)
    (tmp_path / "sevenfold.toml").write_text(
        'default_agent = "mine"\n[agents.mine]\nkind = "python"\ntarget = "contracts.agent:answer"\n'
    )
    with dev(installed, tmp_path) as (process, port):
        await until_ready(port, process=process)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            answer = await http.post("/api/agent/query", json={"query": "hi"})
    assert answer.status_code == 200, answer.text + process.output()
    assert answer.json()["response"] == "own: " + " ".join(ROOMS)


async def test_dev_in_an_empty_folder_answers_a_query(installed: Path, tmp_path: Path) -> None:
    with dev(installed, tmp_path) as (process, port):
        await until_ready(port, process=process)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            answer = await http.post("/api/agent/query", json={"query": "What is Temporal?"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["response"]


def test_two_modules_of_one_name_in_different_folders_give_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    agents = {"mine": PythonAgentConfig(kind="python", target="twin_agents:answer")}
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twin_agents.py").write_text(f"def answer(request):\n    return {folder!r}\n")
    load_agents(agents, tmp_path / "first", {})
    load_agents(agents, tmp_path / "first", {})
    with pytest.raises(AgentLoadError) as refused:
        load_agents(agents, tmp_path / "second", {})
    assert "agent mine" in str(refused.value)
    assert str(tmp_path / "first" / "twin_agents.py") in str(refused.value)
    assert str(tmp_path / "second" / "twin_agents.py") in str(refused.value)
    assert "Rename" in str(refused.value)


@pytest.mark.parametrize("name", ["sevenfold", "json", "time"])
def test_a_users_module_named_like_one_that_is_loaded_gives_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"{name}.py").write_text("def answer(request):\n    return 1\n")
    with pytest.raises(AgentLoadError, match="Rename"):
        load_agents({"mine": PythonAgentConfig(kind="python", target=f"{name}:answer")}, tmp_path, {})


def test_what_agents_import_is_light() -> None:
    """Neither temporalio nor fastapi; the package itself in 150 ms, the best of five."""
    program = (
        "import sys, time, json; began = time.perf_counter()\n"
        "import sevenfold; alone = time.perf_counter() - began\n"
        "heavy = 'pydantic' in sys.modules\n"
        "for name in sevenfold.__all__: getattr(sevenfold, name)\n"
        "print(json.dumps([alone, heavy, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    timed = [json.loads(run(sys.executable, "-c", program, cwd=ROOT)) for _ in range(5)]
    assert min(alone for alone, *_ in timed) <= 0.15
    _, heavy, loaded = timed[0]
    assert not heavy, "the process that reads a document would wait for pydantic"
    assert not {"temporalio", "fastapi", "starlette", "httpx", "structlog"} & set(loaded)


def test_every_name_for_agents_is_there_documented_and_known_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "sevenfold" / "__init__.py").read_text())
    known = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sevenfold.contracts")
        for alias in node.names
    }
    assert known == set(package.__all__)
    described = ast.get_docstring(tree) or ""
    for name in package.__all__:
        assert f"`{name}`" in described
        if name != "AgentEvent":  # a union
            assert getattr(package, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense
    assert set(package.__all__) <= set(dir(package))


def test_no_module_is_loaded_under_two_names() -> None:
    """Nor twice: from the checkout's root, where a bare `import api` would find the same file."""
    program = (
        "import collections, json, os, sys\n"
        "import sevenfold.cli.main, sevenfold.cli.servers, sevenfold.worker, sevenfold.connector\n"
        "files = collections.defaultdict(set)\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if getattr(module, '__file__', None): files[os.path.realpath(module.__file__)].add(name)\n"
        f"own = {{f: sorted(n) for f, n in files.items() if f.startswith({str(ROOT)!r}) and '.venv' not in f}}\n"
        "print(json.dumps(own))"
    )
    loaded: dict[str, list[str]] = json.loads(run(sys.executable, "-c", program, cwd=ROOT))
    assert len(loaded) > 150
    assert {file: names for file, names in loaded.items() if len(names) > 1} == {}
    assert {name.split(".")[0] for names in loaded.values() for name in names} == {"sevenfold"}


def test_rooms_import_nothing_in_their_init_and_say_what_they_are_for() -> None:
    rooms = [path for room in ROOMS for path in (ROOT / room).rglob("__init__.py")]
    assert len(rooms) > 25
    for path in rooms:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        assert len(tree.body) == 1, path
