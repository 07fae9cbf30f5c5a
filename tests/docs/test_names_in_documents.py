"""Paths and names in the documents that lead through the house are real."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("ARCHITECTURE.md", "docs/a-round.md", "docs/glossary.md")
PATH = re.compile(r"`([a-z_]+/(?:[a-zA-Z0-9_.-]+/)*(?:[a-zA-Z0-9_.-]+\.(?:py|md|toml))?)`")
NAME = re.compile(r"`([A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)*)`")
CLASS = re.compile(r"^\s*class (\w+)", re.M)
FLOWERS = {"Grid", "ServerApp", "ClientApp"}


def defined() -> set[str]:
    """Every class of the product."""
    rooms = [at for at in ROOT.iterdir() if at.is_dir() and at.name not in (".venv", "build")]
    files = (file for room in rooms for file in room.rglob("*.py"))
    return {name for file in files for name in CLASS.findall(file.read_text("utf-8"))}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    paths = PATH.findall(text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_class_that_the_documents_name_exists() -> None:
    known = defined() | FLOWERS
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        assert {name for name in NAME.findall(text) if name not in known} == set(), document


def test_the_glossary_names_each_class_where_it_stands() -> None:
    rows = re.findall(r"`([a-z_/]+\.py)`((?: `\w+`,?)*)", (ROOT / "docs/glossary.md").read_text())
    assert len(rows) > 30
    for path, names in rows:
        text = (ROOT / path).read_text("utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b(?:class|def) {name}\b", text), f"{name} is not in {path}"


def test_the_glossary_has_each_term_once() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/glossary.md").read_text("utf-8"), re.M)
    terms = [row.strip() for row in rows if row.strip() not in ("term", "---") and "---" not in row]
    assert len(terms) == len(set(terms)) > 35
