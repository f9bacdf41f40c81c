"""What is checked of a page whose blocks were run."""

from dataclasses import replace

from tests.support.markdown import Block, Page
from tests.support.shell_pages import Ran
from tests.support.shown_answers import SHOWN, compare, expects_error
from tests.support.stack import ROOT

SHELL = ("sh", "bash", "console")


def named(page: Page) -> str:
    """The page's path in the repository."""
    return str(page.path.relative_to(ROOT))


def has_own_gateway(page: Page) -> bool:
    """Whether the page starts what it asks; test_quickstarts.py runs it."""
    return any('in the background until "is ready"' in (block.directive or "") for block in page.blocks)


def is_run(block: Block) -> bool:
    """Whether a test runs the block."""
    return block.language in SHELL and not (block.directive or "").startswith("not run")


def find_mistakes(page: Page, ran: Ran, background: str = "") -> list[str]:
    """What is not as the page shows it, as sentences. `background`: what commands in the background have printed."""
    shown = _shown_after(page, ran.block)
    place = f"{named(page)}:{ran.block.line}"
    allowed = expects_error(shown)
    found = [
        f"{place}: {url} answered {status}\n{ran.output[-800:]}"
        for status, url in ran.requests
        if status >= 400 and status not in allowed
    ]
    return found + [
        f"{named(page)}:{one.line}: {sentence}\n{ran.output[-1500:]}"
        for one in shown
        for sentence in compare(_printer(ran, one, background), one)
    ]


def _shown_after(page: Page, block: Block) -> list[Block]:
    """The answers that stand between a block of commands and the next one."""
    shown: list[Block] = []
    for other in page.blocks[page.blocks.index(block) + 1 :]:
        if other.language in SHELL or other.language == "toml":
            break
        if other.language in SHOWN and not (other.directive or "").startswith("not an answer"):
            shown.append(other)
    return shown


def _printer(ran: Ran, shown: Block, background: str) -> Ran:
    """Whose output a shown block is."""
    return replace(ran, output=background) if shown.directive == "output of the background" else ran
