"""Links between documents lead somewhere, and nobody is told to fetch nomoat from an index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_or_a_heading_of_ours_leads_there(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.M | re.S)
    for path, anchor in LINK.findall(text):
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), anchor


def test_nomoat_is_installed_from_its_repository_and_from_no_index() -> None:
    sources = [file for file in ROOT.glob("*/**/*.py") if file.parts[len(ROOT.parts)][0] != "."]
    for file in (*DOCUMENTS, *sources):
        if file != Path(__file__):
            assert not re.search(
                r"(pip|pipx|uv tool) install [^.\n]{0,12}nomoat", file.read_text("utf-8")
            ), file
