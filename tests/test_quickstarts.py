"""Pages that start a gateway of their own, followed from the first line to the last in an empty folder."""

import os
import shutil
from pathlib import Path

import pytest

from bench.ports import free_ports
from tests.support.markdown import Page
from tests.support.page_checks import find_mistakes, has_own_gateway, is_run, named
from tests.support.shell_pages import is_file, run_blocks
from tests.support.stack import ROOT

PAGES = [page for page in map(Page, sorted((ROOT / "docs").rglob("*.md"))) if has_own_gateway(page)]

# What the pages print; each is another port here. Temporal's is a setting, where a page does not name it.
PORTS = (8000, 7233, 9000, 9001, 4222)


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs curl and bash")
@pytest.mark.parametrize("page", PAGES, ids=named)
async def test_a_reader_gets_what_the_page_shows(page: Page, tmp_path: Path) -> None:
    text = "\n".join(page.lines)
    if "nats-server" in text and shutil.which("nats-server") is None:
        pytest.skip("needs nats-server")
    (tmp_path / "checkout").symlink_to(ROOT)
    (tmp_path / "reader").mkdir()
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SEVENFOLD_", "TEMPORAL_"))}
    ran = await run_blocks(
        [block for block in page.blocks if is_run(block) or is_file(block)],
        addresses={
            f"{before}{port}": f"{before}{used}"
            for port, used in ports.items()
            for before in ("localhost:", "127.0.0.1:", "--port ", "-p ")
        },
        directory=tmp_path,
        folder="reader",
        environment={
            **own,
            "SEVENFOLD_PORT": str(ports[8000]),
            "SEVENFOLD_TEMPORAL_PORT": str(ports[7233]),
            # What is started in the checkout must leave nothing there.
            **({"SEVENFOLD_DATA_DIR": str(tmp_path / "data")} if "in the checkout" in text else {}),
        },
        seconds=200,
    )
    background = "".join(one.output + one.errors for one in ran if "in the background" in (one.block.directive or ""))
    mistakes = [mistake for one in ran for mistake in find_mistakes(page, one, background)]
    assert not mistakes, "\n".join(mistakes)
