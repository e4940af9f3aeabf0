"""Links between the repository's pages, without the network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import CHECKOUT, PAGES

EXTRA = [CHECKOUT / "CHANGELOG.md"]
GENERATED = CHECKOUT / "docs" / "components"
"""Pages that the build of the site writes; it checks links to them, and all anchors."""

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def targets(page: Path) -> list[str]:
    """Relative targets of a page's links, without anchors."""
    found = _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
    return [link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("page", [*PAGES, *EXTRA], ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page):
    missing = [
        target
        for target in targets(page)
        if not (path := (page.parent / target).resolve()).exists() and not path.is_relative_to(GENERATED)
    ]
    assert not missing


def test_links_are_found_and_code_is_not(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('[a](b.md#c) ![d](e.png "f") [g](https://h) [i](#j) `[k](l)`\n```\n[m](n.md)\n```\n')
    assert targets(page) == ["b.md", "e.png"]


def test_every_page_is_in_the_navigation():
    navigation = (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.relative_to(CHECKOUT / "docs").as_posix() for page in PAGES if page.is_relative_to(CHECKOUT / "docs")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_the_site_loads_nothing_from_other_servers():
    settings = (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "http" not in settings
    assert "font: false" in settings
