"""The standard library as a federated dataset."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nomoat.simulations.pocket import corpus
from nomoat.simulations.pocket.corpus import (
    MAX_SUMMARY_CHARS,
    MIN_SUMMARY_CHARS,
    TOPICS,
    StandardLibraryNotFound,
    cached_jsonl,
    docstrings,
    rows,
    standard_library,
    write_jsonl,
)

DOCUMENTED = '''
class Box:
    """A box that holds
    one thing.

    More text.
    """

    async def open(self, lid, /, *keys, force=False, **more):
        """Open the box with the keys that are given."""


def empty(): ...


def short():
    """Too short."""
'''


@pytest.fixture(scope="module")
def real_rows() -> tuple[corpus.CorpusRow, ...]:
    return rows()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library of two topics' modules and one module of no topic."""
    root = tmp_path / "lib"
    (root / "asyncio" / "test").mkdir(parents=True)
    (root / "asyncio" / "__init__.py").write_text(DOCUMENTED)
    (root / "asyncio" / "events.py").write_text(DOCUMENTED.replace("box", "loop"))
    (root / "asyncio" / "test" / "support.py").write_text(DOCUMENTED.replace("box", "test"))
    (root / "shutil.py").write_text(DOCUMENTED.replace("box", "disk"))
    (root / "colorsys.py").write_text(DOCUMENTED.replace("box", "colour"))
    return root


def test_every_topic_of_a_full_python_has_rows(real_rows: tuple[corpus.CorpusRow, ...]) -> None:
    expected = {topic.name for topic in TOPICS}
    if not (standard_library() / "tkinter").is_dir():
        expected.discard("tkinter")
    for name in expected:
        assert sum(row.topic == name for row in real_rows) > 100


def test_rows_do_not_depend_on_the_order_of_a_folder(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library / "asyncio" / "base.py").write_text(DOCUMENTED.replace("box", "base"))
    before, walk = rows(library), os.walk

    def backwards(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in walk(top):
            folders.reverse()
            yield folder, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert rows(library) == before


def test_summaries_are_folded_bounded_and_distinct(real_rows: tuple[corpus.CorpusRow, ...]) -> None:
    for row in real_rows:
        assert MIN_SUMMARY_CHARS < len(row.summary) < MAX_SUMMARY_CHARS
        assert row.summary == " ".join(row.summary.split())
        assert "\n" not in row.signature
    assert len({(row.signature, row.summary) for row in real_rows}) == len(real_rows)


def test_a_row_is_a_signature_and_the_first_paragraph(library: Path) -> None:
    found = {row.signature: row.summary for row in rows(library) if row.module == "shutil"}
    assert found == {
        "Box": "A disk that holds one thing.",
        "Box.open(self, lid, *keys, force, **more)": "Open the disk with the keys that are given.",
    }


def test_modules_are_named_and_those_of_no_topic_left_out(library: Path) -> None:
    assert {(row.module, row.topic) for row in rows(library)} == {
        ("asyncio", "asyncio"),
        ("asyncio.events", "asyncio"),
        ("shutil", "files"),
    }


def test_a_pair_that_occurs_twice_is_kept_once(library: Path) -> None:
    before = len(rows(library))
    (library / "pathlib.py").write_text(DOCUMENTED)
    assert len(rows(library)) == before


def test_a_topic_without_its_modules_has_no_rows(library: Path) -> None:
    (library / "shutil.py").unlink()
    assert {row.topic for row in rows(library)} == {"asyncio"}


@pytest.mark.parametrize(
    "hostile",
    [
        b"def broken(:\n",
        b"\x00\x01",
        b"\xff\xfe not utf-8",
        b"# -*- coding: no-such-codec -*-\n",
        b"(" * 100_000,
        b"-" * 100_000 + b"1",
        b"x = '" + b"y" * (corpus.MAX_SOURCE_BYTES + 1) + b"'",
        b'def lone():\n    "\\ud800 is no character, so this cannot be encoded"\n',
        b"",
    ],
    ids=["syntax", "null", "encoding", "codec", "deep", "chain", "large", "surrogate", "empty"],
)
def test_a_hostile_file_is_skipped_and_the_rest_is_read(library: Path, hostile: bytes) -> None:
    before = rows(library)
    (library / "asyncio" / "bad.py").write_bytes(hostile)
    assert rows(library) == before


def test_what_is_no_regular_file_is_skipped(library: Path) -> None:
    before = rows(library)
    (library / "asyncio" / "folder.py").mkdir()
    (library / "asyncio" / "dangling.py").symlink_to("nowhere")
    (library / "asyncio" / "loop").symlink_to("..", target_is_directory=True)
    os.mkfifo(library / "asyncio" / "pipe.py")
    assert rows(library) == before


def test_an_unreadable_file_is_skipped(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def guarded(path: Path) -> bytes:
        if path.name == "events.py":
            raise PermissionError(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", guarded)
    assert {row.module for row in rows(library)} == {"asyncio", "shutil"}


def test_docstrings_leaves_out_what_it_is_told_to(library: Path) -> None:
    modules = {item.module for item in docstrings(library, skip={"asyncio", "colorsys"})}
    assert modules == {"shutil"}
    assert "asyncio.test.support" in {item.module for item in docstrings(library, skip=())}


@pytest.mark.parametrize("exists", [True, False])
def test_a_python_without_sources_is_told_what_to_do(tmp_path: Path, exists: bool) -> None:
    root = tmp_path / "lib"
    if exists:
        root.mkdir()
    with pytest.raises(StandardLibraryNotFound, match=r"no Python source .*: use a Python") as told:
        rows(root)
    assert str(root) in str(told.value)
    assert "\n" not in str(told.value)


def test_jsonl_holds_every_row(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, library)
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert read == [
        {"prompt": row.signature, "completion": row.summary, "topic": row.topic}
        for row in rows(library)
    ]


def test_a_cached_file_is_written_once_and_then_reused(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "standard_library", lambda: library)
    path = cached_jsonl(tmp_path / "cache" / "deep")
    assert list(path.parent.iterdir()) == [path]
    written = path.stat().st_mtime_ns, path.stat().st_ino
    assert cached_jsonl(tmp_path / "cache" / "deep") == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written


def test_another_version_of_the_corpus_gets_another_file(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "standard_library", lambda: library)
    first = cached_jsonl(tmp_path)
    monkeypatch.setattr(corpus, "CORPUS_VERSION", "next")
    second = cached_jsonl(tmp_path)
    (library / "shutil.py").unlink()
    assert len({first, second, cached_jsonl(tmp_path)}) == 3


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    path = cache / "rows.jsonl"
    path.write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_jsonl(path, library)
    assert list(cache.iterdir()) == [path]
    assert path.read_text() == "old"
