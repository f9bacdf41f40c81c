"""The documentation: commands run as printed, answers have the shape that is shown, links lead somewhere."""

import ast
import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.ports import free_port
from sevenfold.api.http.problem_pages import explain_problems
from sevenfold.api.http.problems import ProblemType
from sevenfold.contracts.config.schema import SevenfoldConfig
from sevenfold.runtime.config.field_docs import describe_field, find_models
from sevenfold.runtime.config.settings import Settings
from tests.support.markdown import Page
from tests.support.page_checks import SHELL, find_mistakes, has_own_gateway, is_run, named
from tests.support.shell_pages import PageFailedError, run_blocks
from tests.support.stack import ROOT, Stack, running_stack
from tests.support.tenants import TenantKey, key_config

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
LINKED = [
    README,
    *DOCS,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md") if (ROOT / name).exists()),
]
PAGES = [Page(path) for path in (README, *DOCS)]


WITH_COMMANDS = [page for page in PAGES if any(is_run(block) for block in page.blocks) and not has_own_gateway(page)]
KEYED = [page for page in WITH_COMMANDS if any("Bearer $SEVENFOLD_API_KEY" in block.text for block in page.blocks)]

ADMIN = TenantKey("default", ("admin",))


@pytest.fixture(scope="module")
async def documented(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A gateway as `make run` starts it, which lets webhooks go to this machine."""
    async with running_stack(tmp_path_factory.mktemp("documented"), temporal_ui=True) as stack:
        yield stack


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[Stack]:
    """A gateway with keys, as its operator meets it."""
    key = base64.b64encode(bytes(32)).decode()
    async with running_stack(tmp_path, more_config=key_config(ADMIN), secret_key=key) as stack:
        yield stack


needs_shell = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("bash") is None, reason="needs curl and bash"
)


@needs_shell
@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page not in KEYED], ids=named)
async def test_commands_run_as_printed(page: Page, documented: Stack, tmp_path: Path) -> None:
    mistakes = await _mistakes_of(page, documented, tmp_path)
    assert not mistakes, "\n".join(mistakes)


@needs_shell
@pytest.mark.parametrize("page", KEYED, ids=named)
async def test_commands_of_operators_run_as_printed(page: Page, keyed: Stack, tmp_path: Path) -> None:
    """`sevenfold keys … --write` changes the file of the reader's own folder."""
    headers = {"Authorization": f"Bearer {ADMIN.text}"}
    tenant = {"name": "acme"} if "quotas" in page.path.name else None
    if tenant is not None:  # which the page before has created
        await keyed.http.post("/api/agent/admin/tenants", json=tenant, headers=headers)
        await keyed.http.post("/api/agent/admin/tenants/acme/keys", json={"scopes": ["runs:read"]}, headers=headers)
    (tmp_path / "reader").mkdir()
    mistakes = await _mistakes_of(page, keyed, tmp_path, folder="reader", SEVENFOLD_API_KEY=ADMIN.text)
    assert not mistakes, "\n".join(mistakes)


async def _mistakes_of(
    page: Page, documented: Stack, tmp_path: Path, folder: str = "checkout", **more: str
) -> list[str]:
    """Runs a page's commands; what went wrong, as sentences."""
    (tmp_path / "checkout").symlink_to(ROOT)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SEVENFOLD_", "TEMPORAL_"))}
    gateway = f"127.0.0.1:{documented.settings.port}"
    receiver = str(free_port())
    ran = await run_blocks(
        [block for block in page.blocks if is_run(block)],
        addresses={
            "localhost:8000": gateway,
            "localhost:8233": f"127.0.0.1:{documented.settings.temporal_ui_port}",
            "localhost:9000": f"127.0.0.1:{receiver}",
            "PORT=9000": f"PORT={receiver}",
            "--port 9000": f"--port {receiver}",
        },
        directory=tmp_path,
        environment={**own, "SEVENFOLD_URL": f"http://{gateway}", **more},
        folder=folder,
    )
    return [mistake for one in ran for mistake in find_mistakes(page, one)]


WRONG = {
    "answered 404": "```sh\ncurl -s http://localhost:8000/api/agent/runs/qry_none\n```\n",
    "/version is shown and missing": (
        '```sh\ncurl -s http://localhost:8000/health/live\n```\n```json\n{"status": "ok", "version": 1}\n```\n'
    ),
    "'bad' is shown": ('```sh\ncurl -s http://localhost:8000/health/live\n```\n```json\n{"status": "bad"}\n```\n'),
    "the line 'data: {}' is shown": "```sh\ncurl -s http://localhost:8000/health/live\n```\n```text\ndata: {}\n```\n",
    "HTTP/1.1 422": "```sh\ncurl -si http://localhost:8000/health/live\n```\n```http\nHTTP/1.1 422\n```\n",
}


@needs_shell
@pytest.mark.parametrize("sentence", WRONG)
async def test_page_with_a_wrong_answer_fails(sentence: str, documented: Stack, tmp_path: Path) -> None:
    page = Page(ROOT / "docs" / "wrong.md", WRONG[sentence])
    assert sentence in "\n".join(await _mistakes_of(page, documented, tmp_path))


@needs_shell
async def test_page_with_a_failing_command_fails(documented: Stack, tmp_path: Path) -> None:
    page = Page(ROOT / "docs" / "wrong.md", "```sh\nfalse\necho never\n```\n")
    with pytest.raises(PageFailedError, match="ended with 1"):
        await _mistakes_of(page, documented, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_is_not_run_says_why(page: Page) -> None:
    """Every block of commands or Python is run by a test, or says why not. `shell-session` is no way around it."""
    silent = [
        block.line
        for block in page.blocks
        if block.language == "shell-session" or (block.directive or "").strip() in ("not run", "not run here")
    ]
    assert not silent, f"{named(page)}: say why in `<!-- docs-test: not run: … -->`: lines {silent}"


def test_few_blocks_are_not_run() -> None:
    blocks = [(page, block) for page in PAGES for block in page.blocks if block.language in (*SHELL, "python")]
    not_run = [
        f"{named(page)}:{block.line}" for page, block in blocks if (block.directive or "").startswith("not run")
    ]
    assert len(not_run) <= len(blocks) / 6, not_run


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = [f"{path.name}:{line}: {target}" for line, target in Page(path).links if not _leads(path, target)]
    assert not broken, "\n".join(broken)


def _leads(path: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True  # another host's: not asked here
    name, _, anchor = target.partition("#")
    found = (path.parent / name) if name else path
    if not found.exists():
        return False
    return not anchor or (found.suffix == ".md" and anchor in Page(found).anchors)


def test_configuration_blocks_are_valid() -> None:
    for page in PAGES:
        for block in page.blocks:
            if block.language == "toml" and block.directive != "not Sevenfold's configuration":
                SevenfoldConfig.model_validate(tomllib.loads(block.text))


def test_json_blocks_parse() -> None:
    for page in PAGES:
        for block in page.blocks:
            if block.language == "json":
                json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_blocks_load(page: Page) -> None:
    """Each is a module that can be imported; those of the quickstarts are run there."""
    for block in page.blocks:
        if block.language == "python":
            tree = ast.parse(block.text, filename=f"{named(page)}:{block.line}")
            _check_imports(tree)
            if not has_own_gateway(page) and not (block.directive or "").startswith("not run"):
                exec(compile(tree, f"{named(page)}:{block.line}", "exec"), {"__name__": "page"})  # noqa: S102


def _check_imports(tree: ast.Module) -> None:
    """Every name that a page imports from `sevenfold` is there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "sevenfold" and importlib.util.find_spec("sevenfold"):
            package = importlib.import_module("sevenfold")
            for alias in node.names:
                assert hasattr(package, alias.name), f"sevenfold has no {alias.name}"


def test_the_readme_is_short_and_names_no_index() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    for page in PAGES:
        assert not re.search(r"(?i)index-url|://(test\.)?pypi|simple/", "\n".join(page.lines)), page.path


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / ".site" / "reference.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_section_of_the_configuration_has_a_table() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    tables = set(re.findall(r"^<!-- generated: keys (\w+) -->$", text, re.MULTILINE))
    models = {one.__name__: one for one in (SevenfoldConfig, *find_models(SevenfoldConfig))}
    agents = {name for name in models if name.endswith("AgentConfig")}  # They have one table together.
    elsewhere = {"AuthConfig", "EventFilter", "Budget"}
    assert tables == set(models) - agents - elsewhere
    undescribed = {
        f"{name}.{key}"
        for name in tables | agents
        for key in models[name].model_fields
        if key != "kind" and not describe_field(models[name], key)
    }
    assert not undescribed
    assert not [name for name in Settings.model_fields if not describe_field(Settings, name)]


def test_every_problem_type_is_explained() -> None:
    text = (ROOT / "api" / "http" / "problems.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(text)) == {kind.slug for kind in ProblemType}
    assert all(one.meaning and one.remedy and one.detail for one in explain_problems().values())
