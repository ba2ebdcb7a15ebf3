"""Whether a built site holds together: no dead link, a page for each public name, enough pictures, ten lessons.

Run as ``python docs/_ext/check_site.py docs/_build/html``; exits with 1 and a list when something is amiss.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import radplan

LESSONS, PICTURES = 10, 20


class Page(HTMLParser):
    """The links and anchors of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def read(root: Path) -> dict[Path, Page]:
    """Return every page of a site."""
    pages = {}
    for path in sorted(root.rglob("*.html")):
        if "_static" in path.parts:
            continue
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        pages[path.resolve()] = page
    return pages


def dead_links(root: Path) -> list[str]:
    """Return the links within a site that lead nowhere: to files that are not there, or anchors that a page lacks."""
    pages = read(root)
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or (link.startswith("#") and len(link) == 1):
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                dead.append(f"{path.relative_to(root.resolve())}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                dead.append(f"{path.relative_to(root.resolve())}: {link} (no such anchor)")
    return dead


def bare_names(root: Path) -> list[str]:
    """Return public names whose page is missing, or lacks a signature or an example."""
    bare = []
    for name in radplan.__all__:
        path = root / "api" / f"{name}.html"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        signed = 'class="sig ' in text or "sig-object" in text
        if not signed or not ("&gt;&gt;&gt;" in text or "Example" in text):
            bare.append(name)
    return bare


def main(root: Path) -> int:
    """Print what is amiss; return 1 when something is."""
    amiss = [f"dead link: {link}" for link in dead_links(root)]
    amiss += [f"no signature or no example: {name}" for name in bare_names(root)]
    pictures = list((root / "_images").glob("sphx_glr_plot_*.png"))
    pictures = [path for path in pictures if "_thumb" not in path.name]
    if len(pictures) < PICTURES:
        amiss.append(f"{len(pictures)} pictures in the gallery, {PICTURES} are wanted")
    lessons = list((root / "course").glob("[01][0-9]_*.html"))
    if len(lessons) != LESSONS:
        amiss.append(f"{len(lessons)} lessons, {LESSONS} are wanted")
    print(
        "\n".join(amiss)
        or f"{len(read(root))} pages, {len(pictures)} pictures, {len(lessons)} lessons: all links lead on"
    )
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
