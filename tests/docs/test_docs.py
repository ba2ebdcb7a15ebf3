"""Every Python block of the documentation runs, and every local link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import pytest

import radplan

mpl.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=[str(p.relative_to(DOCS)) for p in WITH_CODE])
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(page.parent))
    space: dict[str, object] = {"__name__": "__docs__"}
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block.group(1), str(page), "exec"), space)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda p: p.name)
def test_local_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_api_page_lists_every_public_name() -> None:
    listed = set(re.findall(r"^\| `(\w+)`", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == set(radplan.__all__)


@pytest.mark.parametrize(
    "page", sorted(page for page in (DOCS / "extend").glob("*.md") if page.stem != "index"), ids=lambda p: p.name
)
def test_listings_are_the_files_they_show(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    listings = re.findall(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    files = [(page.parent / name).read_text(encoding="utf-8") for name in re.findall(r"\]\((\w+\.py)\)", text)]
    assert listings
    assert all(listing in files for listing in listings)


def test_every_guide_is_in_the_sites_menu() -> None:
    listed = set()
    for index in PAGES:
        for menu in re.findall(
            r"^```\{toctree\}\n(.*?)^```", index.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            listed |= {(index.parent / line).resolve() for line in menu.splitlines() if line and line[0] != ":"}
    written = {page.with_suffix("").resolve() for page in PAGES}
    assert written - listed == {(DOCS / "index").resolve()}


def test_every_public_name_has_an_example() -> None:
    cells = re.findall(
        r"^# %% (\w+)$", (DOCS / "examples" / "public_names.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    bare = [name for name in radplan.__all__ if ">>>" not in (getattr(radplan, name).__doc__ or "")]
    assert not set(bare) - set(cells), "add a cell to docs/examples/public_names.py, or a doctest"
