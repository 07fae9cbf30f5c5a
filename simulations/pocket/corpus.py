"""The standard library of the user's own Python as a federated dataset.

Every documented function, method and class of a module gives one pair: its signature (the prompt)
and the first paragraph of its docstring (the completion). A volunteer is a topic, and so holds text
that no other volunteer has. Sources are parsed, never imported.
"""

import ast
import json
import os
import platform
import re
import stat
import sysconfig
import tempfile
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

CORPUS_VERSION = "1"  # raise it when the rows change: it is part of the cache key

# A summary's length in characters lies strictly between the two.
MIN_SUMMARY_CHARS = 15
MAX_SUMMARY_CHARS = 400
MAX_SOURCE_BYTES = 2_000_000  # larger files are generated tables

SKIPPED = frozenset(
    {
        "__pycache__",
        "_vendor",
        "dist-packages",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pip",
        "site-packages",
        "test",
        "tests",
    }
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Topic:
    """One volunteer's subject: the top-level modules and packages of one subject."""

    name: str
    modules: tuple[str, ...]


TOPICS = (
    Topic("tkinter", ("tkinter", "turtle")),
    Topic("asyncio", ("asyncio", "concurrent", "threading", "multiprocessing")),
    Topic("mail", ("email", "mailbox", "smtplib", "imaplib", "nntplib")),
    Topic("import", ("importlib", "inspect", "pydoc", "ast", "dis")),
    Topic(
        "numbers",
        ("_pydecimal", "fractions", "statistics", "random", "numbers", "datetime", "calendar"),
    ),
    Topic("web", ("http", "urllib", "xmlrpc", "wsgiref", "socketserver", "ssl", "ftplib")),
    Topic("files", ("pathlib", "tarfile", "zipfile", "shutil", "_pyio", "gzip", "bz2")),
    Topic("logging", ("logging", "unittest", "doctest", "traceback", "pdb", "bdb")),
)


@dataclass(frozen=True)
class Docstring:
    """A definition's signature and the first paragraph of its docstring, white space folded."""

    module: str
    signature: str
    summary: str


@dataclass(frozen=True)
class CorpusRow:
    """One training pair of the volunteer who holds `topic`."""

    module: str
    signature: str
    summary: str
    topic: str


class StandardLibraryNotFound(ValueError):
    """This Python carries no readable source of its standard library, so there is no data."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"no Python source of the standard library in {root} (stripped or zipped?): "
            "use a Python installed with its .py files, or name a folder that has them"
        )


def standard_library() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def docstrings(root: Path, skip: Collection[str] = SKIPPED) -> Iterator[Docstring]:
    """Every usable docstring below `root`, in the order of the sorted paths.

    Files and folders named in `skip` (without .py) are left out, as are files that cannot be read
    or parsed. Module names are relative to `root`.
    """
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - set(skip))
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix == ".py" and path.stem not in skip:
                yield from file_docstrings(path, module_name(path.relative_to(root)))


def file_docstrings(path: Path, module: str) -> Iterator[Docstring]:
    """Every usable docstring of one source file; none if it cannot be read or parsed."""
    tree = _parse(path)
    if tree is not None:
        for signature, text in _definitions(tree, ""):
            summary = summary_of(text)
            usable = MIN_SUMMARY_CHARS < len(summary) < MAX_SUMMARY_CHARS
            if usable and _is_unicode(signature + summary):
                yield Docstring(module, signature, summary)


def module_name(relative: Path) -> str:
    """The dotted name of the module in a source file, its path taken from the root of imports."""
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def summary_of(docstring: str) -> str:
    """The first paragraph, with every run of white space folded to one space."""
    return " ".join(re.split(r"\n[ \t]*\n", docstring.strip(), maxsplit=1)[0].split())


def rows(root: Path | None = None) -> tuple[CorpusRow, ...]:
    """Every volunteer's pairs, topic by topic; the same on every run of the same Python.

    `root` is the standard library's folder, by default the running Python's. A topic that this
    Python lacks (tkinter is often packaged apart) has no rows; without any row,
    StandardLibraryNotFound. A pair that occurs twice stays with the first topic that has it.
    """
    root = standard_library() if root is None else root
    first_seen: dict[tuple[str, str], CorpusRow] = {}
    for topic in TOPICS:
        for module in topic.modules:
            for item in _module_docstrings(root, module):
                row = CorpusRow(item.module, item.signature, item.summary, topic.name)
                first_seen.setdefault((row.signature, row.summary), row)
    if not first_seen:
        raise StandardLibraryNotFound(root)
    return tuple(first_seen.values())


def write_jsonl(path: Path, root: Path | None = None) -> None:
    """Write the rows of `root` as {"prompt": signature, "completion": summary, "topic": name}.

    The file appears whole or not at all.
    """
    lines = [
        json.dumps({"prompt": row.signature, "completion": row.summary, "topic": row.topic})
        for row in rows(root)
    ]
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def cached_jsonl(cache_dir: Path) -> Path:
    """The running Python's rows as a JSON Lines file in `cache_dir`, written the first time.

    The name carries the Python version, the topics it has and CORPUS_VERSION: a change of any
    of them gives a new file.
    """
    python = f"{platform.python_implementation().lower()}-{platform.python_version()}"
    path = cache_dir / f"stdlib-{python}-{_topics_present()}topics-v{CORPUS_VERSION}.jsonl"
    if not path.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_jsonl(path)
    return path


def _module_docstrings(root: Path, module: str) -> Iterator[Docstring]:
    """The docstrings of one top-level module or package, its name kept in front."""
    yield from file_docstrings(root / f"{module}.py", module)
    for item in docstrings(root / module):
        name = module if item.module == "__init__" else f"{module}.{item.module}"
        yield Docstring(name, item.signature, item.summary)


def _topics_present() -> int:
    root = standard_library()
    found = [
        any((root / name).is_dir() or (root / f"{name}.py").is_file() for name in topic.modules)
        for topic in TOPICS
    ]
    return sum(found)


def _parse(path: Path) -> ast.Module | None:
    """The syntax tree of a source file; None for anything that is not one."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SOURCE_BYTES:
            return None  # a named pipe would block the read
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escape sequences
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # ValueError: null bytes; MemoryError: nested beyond the parser's stack


def _definitions(node: ast.Module | Definition, prefix: str) -> Iterator[tuple[str, str]]:
    """(signature, docstring) of every documented definition in the node, outer ones first."""
    for child in node.body:
        if isinstance(child, Definition):
            docstring = ast.get_docstring(child)
            if docstring:
                yield prefix + _signature(child), docstring
            yield from _definitions(child, f"{prefix}{child.name}.")


def _signature(definition: Definition) -> str:
    """`name(a, b, *rest, key, **more)`; for a class, its bare name."""
    if isinstance(definition, ast.ClassDef):
        return definition.name
    given = definition.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    if given.vararg or given.kwonlyargs:
        names.append(f"*{given.vararg.arg if given.vararg else ''}")
    names.extend(argument.arg for argument in given.kwonlyargs)
    if given.kwarg:
        names.append(f"**{given.kwarg.arg}")
    return f"{definition.name}({', '.join(names)})"


def _is_unicode(text: str) -> bool:
    """True if the text can be encoded; an escape such as \\ud800 in a source cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
