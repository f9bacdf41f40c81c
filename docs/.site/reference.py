"""`make reference`: regenerates parts of the documentation from the models, commands and routes.

A generated part is between `<!-- generated: name -->` and `<!-- end -->`; what is around it is written by hand.
With `--check` nothing is written: it exits with 1 if a part is out of date.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command_reference
import configuration_reference
import http_reference

from sevenfold.api.app import create_app
from sevenfold.api.http.problem_pages import explain_problems

DOCS = Path(__file__).resolve().parents[1]

_PART = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n)(?P<body>.*?)(<!-- end -->\n)", re.DOTALL)


def describe_problems() -> str:
    """Returns a section for every problem type."""
    sections = [
        f"### `{slug}`\n\n{one.title} ({one.status}). {one.meaning}\n\n**Do.** {one.remedy}\n\n"
        f"<!-- docs-test: not an answer -->\n```json\n{one.example}\n```\n"
        for slug, one in explain_problems().items()
    ]
    return "\n".join(sections)


def describe_http() -> str:
    """Returns the operations of the API."""
    no_components: Any = SimpleNamespace()  # Only what the routes declare is asked for.
    return http_reference.describe(create_app(no_components).openapi())


_WRITERS: dict[str, Callable[[], str]] = {
    "problems": describe_problems,
    "http": describe_http,
    "commands": command_reference.describe,
    "settings": configuration_reference.describe_settings,
    "agents": configuration_reference.describe_agents,
}


def write_part(name: str) -> str:
    """Returns the text of a part; `keys Model` is a table of that section of sevenfold.toml."""
    if name.startswith("keys "):
        return configuration_reference.describe_section(name.removeprefix("keys "))
    return _WRITERS[name]()


def render(text: str) -> str:
    """Returns a page with its generated parts replaced."""
    return _PART.sub(lambda part: f"{part[1]}\n{write_part(part['name']).strip()}\n\n{part[4]}", text)


def main(arguments: list[str]) -> int:
    """Writes the pages, or checks them."""
    stale = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        rendered = render(text)
        if rendered != text:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(rendered, encoding="utf-8")
    for page in stale:
        state = "is out of date: run `make reference`" if "--check" in arguments else "written"
        sys.stdout.write(f"{page.relative_to(DOCS.parent)} {state}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
