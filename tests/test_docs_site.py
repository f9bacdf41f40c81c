"""The site of the documentation: every page, links that lead somewhere, nothing from another host."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jsonschema_rs
import pytest

from tests.support.stack import ROOT

SITE = ROOT / "docs" / ".site"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site_build", SITE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(builder: ModuleType, work: Path, more: str = "") -> subprocess.CompletedProcess[str]:
    builder.copy_pages(work / "docs")
    if more:
        (work / "docs" / "agents.md").write_text(more, encoding="utf-8")
    (work / "zensical.toml").write_text((SITE / "zensical.toml").read_text())
    generator = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    return subprocess.run(generator, cwd=work, capture_output=True, text=True, timeout=120, check=False)


def test_every_page_is_built_and_needs_no_other_host(builder: ModuleType, tmp_path: Path) -> None:
    done = build(builder, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        built = tmp_path / "site" / (name.with_name("index.html") if name.name == "README.html" else name)
        assert built.is_file(), page
        html = built.read_text(encoding="utf-8")
        assert not re.findall(r"""(?:src|<link[^>]* href)=["']https?://""", html), page
    assert (tmp_path / "site" / "index.html").is_file()
    assert "Sevenfold is an agent integration gateway" in (tmp_path / "site" / "search.json").read_text()


def test_a_link_to_nothing_fails_the_build(builder: ModuleType, tmp_path: Path) -> None:
    done = build(builder, tmp_path, "# Agents\n\n[nowhere](nowhere.md)\n")
    assert done.returncode != 0
    assert "page does not exist" in done.stdout + done.stderr


def test_every_page_is_in_the_menu() -> None:
    menu = (SITE / "zensical.toml").read_text()
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert not [page for page in pages if not page.startswith("decisions/") and f'"{page}"' not in menu]


def test_the_schema_is_that_of_the_configuration() -> None:
    program = [str(Path(sys.executable).with_name("sevenfold")), "schema"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    schema = json.loads(done.stdout)
    assert {"agents", "brokers", "tenants"} <= set(schema["properties"])
    jsonschema_rs.meta.validate(schema)
    assert "whether" in schema["properties"]["interactions"]["description"]
