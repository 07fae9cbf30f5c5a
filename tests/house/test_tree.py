"""The tree keeps the rules of the house: small functions, small folders, one name for one thing."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {name: ROOT / path for name, path in PROJECT["package-dir"].items()}
ROOMS = sorted(path.name for path in FOLDERS.values())

MAX_LINES, MAX_FILES = 40, 13
REASON = "# also in "  # beside a class whose name another one has: which, and why
QUESTION = re.compile(r"(What|Whether|Where|Who|Whose|How|When|Why|Which)\b")


def modules() -> Iterator[Path]:
    """Every Python file of the product."""
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def nodes(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text("utf-8")))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_function_is_longer_than_a_page(room: str) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in nodes(path)
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno >= MAX_LINES
    ]
    assert long == []


def test_every_folder_can_be_surveyed() -> None:
    files: dict[str, int] = defaultdict(int)
    for path in modules():
        files[shown(path.parent)] += path.name != "__init__.py"
    full = {folder: count for folder, count in files.items() if count > MAX_FILES}
    assert full == {}


def test_a_class_name_means_one_thing_or_a_comment_says_why() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        lines = path.read_text("utf-8").splitlines()
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                said = REASON in "".join(lines[node.lineno - 2 : node.lineno])
                if not said and not node.name.startswith("_"):
                    places[node.name].append(shown(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def packages() -> dict[str, Path]:
    """Import name → folder of everything with Python in it."""
    found = {}
    for name, folder in FOLDERS.items():
        for path in {file.parent for file in folder.rglob("*.py")}:
            below = path.relative_to(folder).parts
            found[".".join((name, *below))] = path
    return found


def test_no_docstring_opens_with_a_question_word() -> None:
    """Verb or noun first, as the standard library has it: a question tells nothing."""
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    asking = [
        f"{shown(path)}:{getattr(node, 'lineno', 1)}"
        for path in modules()
        for node in nodes(path)
        if isinstance(node, documented) and QUESTION.match(ast.get_docstring(node) or "")
    ]
    assert not asking


def test_every_package_is_installed() -> None:
    assert sorted(packages()) == sorted(PROJECT["packages"])


@pytest.mark.parametrize("name", sorted(packages()))
def test_every_package_says_what_lives_there(name: str) -> None:
    start = packages()[name] / "__init__.py"
    assert start.is_file()
    assert ast.get_docstring(ast.parse(start.read_text("utf-8")))


@pytest.mark.parametrize("arguments", [("-m", "nomoat", "--version"), ("-c", "import nomoat")])
def test_a_clone_does_not_hide_the_installed_package(arguments: tuple[str, ...]) -> None:
    """Python puts the folder it is started in before what is installed."""
    assert importlib.util.find_spec("nomoat") is not None
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (ROOT / "nomoat").exists()
