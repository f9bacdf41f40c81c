"""`make docs`: builds the site in `site/` from the README and docs/.

A copy of the pages is built: there the README is the first page, and links to sources and examples, which the site
does not have, are shown as paths.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def main() -> None:
    """Copies the pages and runs the generator. Fails if it warns, as it does about links to nothing."""
    with tempfile.TemporaryDirectory(prefix="sevenfold-docs-") as temporary:
        work = Path(temporary)
        copy_pages(work / "docs")
        shutil.copy(Path(__file__).with_name("zensical.toml"), work)
        generator = Path(sys.executable).with_name("zensical")
        subprocess.run([generator, "build", "--strict", "--clean"], cwd=work, check=True)
        shutil.rmtree(ROOT / "site", ignore_errors=True)
        shutil.copytree(work / "site", ROOT / "site")


def copy_pages(target: Path) -> None:
    """Writes all pages below `target`."""
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        is_first = page.parent == ROOT
        copy = target / ("index.md" if is_first else page.relative_to(DOCS))
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text(encoding="utf-8")
        copy.write_text(_LINK.sub(lambda link, page=page: _shown(link, page), text), encoding="utf-8")  # type: ignore[misc]
    _split_problems(target)


def _split_problems(target: Path) -> None:
    """Writes a page for each problem type, at the address that its `type` is on every gateway."""
    sections = re.split(
        r"^### `([a-z-]+)`$", (target / "problems.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    for name, text in zip(sections[1::2], sections[2::2], strict=True):
        page = target / "problems" / name / "index.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"# `{name}`\n{text.replace('<!-- end -->', '')}", encoding="utf-8")


def _shown(link: re.Match[str], page: Path) -> str:
    target = link["target"]
    if "://" in target or target.startswith("mailto:"):
        return link[0]
    path = (page.parent / target).resolve()
    if path.is_relative_to(DOCS) and path.suffix:
        return link[0].replace("](docs/", "](") if page.parent == ROOT else link[0]
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f"{link['text']} (`{name}`)"


if __name__ == "__main__":
    main()
