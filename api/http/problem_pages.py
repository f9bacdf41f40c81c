"""`/problems`: a page for every problem type, at the address that is its `type`. It needs no credential."""

import json
import tomllib
from functools import cache
from html import escape
from importlib.resources import files

from fastapi import APIRouter, Path, Response

from sevenfold.api.http.problems import PROBLEM_PREFIX, Problem, ProblemError, ProblemType

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem;
margin: 2rem auto; padding: 0 1rem }} pre {{ overflow-x: auto; padding: 1rem; border: 1px solid }}</style></head>
<body>{body}</body></html>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "max-age=3600",
}


class Explanation(Problem):
    """A problem type, explained, with an example of its `detail`."""

    meaning: str
    remedy: str

    @property
    def example(self) -> str:
        """A body of this type, as JSON."""
        body = self.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"meaning", "remedy"})
        return json.dumps(body, indent=2)


@cache
def explain_problems() -> dict[str, Explanation]:
    """Returns the explanations of all problem types by their names, in the order of status and name."""
    written = tomllib.loads(files("sevenfold.api.http").joinpath("problems.toml").read_text(encoding="utf-8"))
    return {
        kind.slug: Explanation(
            type=kind.type,
            title=kind.title,
            status=kind.status,
            detail=written[kind.slug]["example"],
            request_id="req_da0926ec02550526f698bde7",
            meaning=written[kind.slug]["meaning"],
            remedy=written[kind.slug]["remedy"],
        )
        for kind in sorted(ProblemType, key=lambda one: (one.status, one.slug))
    }


@router.get(PROBLEM_PREFIX)
async def list_problems() -> Response:
    """Lists all types."""
    rows = "".join(
        f'<li><a href="problems/{slug}">{slug}</a> ({one.status}): {_in_html(one.meaning)}</li>'
        for slug, one in explain_problems().items()
    )
    return _render("Problems", f"<h1>Problems</h1><ul>{rows}</ul>")


@router.get(f"{PROBLEM_PREFIX}/{{name}}")
async def show_problem(name: str = Path()) -> Response:
    """Explains a type. Raises 404."""
    found = explain_problems().get(name)
    if found is None:
        raise ProblemError(
            ProblemType.NOT_FOUND, f"There is no problem type of this name. {PROBLEM_PREFIX} lists all."
        )
    body = (
        f"<h1>{escape(found.title)}</h1><p>Status {found.status}, type <code>{escape(found.type)}</code>.</p>"
        f"<h2>What it means</h2><p>{_in_html(found.meaning)}</p><h2>What to do</h2><p>{_in_html(found.remedy)}</p>"
        f'<h2>Example</h2><pre>{escape(found.example)}</pre><p><a href="../problems">All problems</a></p>'
    )
    return _render(found.title, body)


def _render(title: str, body: str) -> Response:
    return Response(_PAGE.format(title=escape(title), body=body), 200, _HEADERS, "text/html")


def _in_html(text: str) -> str:
    """Markdown's code spans, the only markup that the explanations have, in HTML."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
