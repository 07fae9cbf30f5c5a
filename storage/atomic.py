"""Files that are whole or not there: written beside their place, then renamed into it; locks."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from nomoat.aggregation.errors import NomoatError
from nomoat.storage.names import make_folder, settle

LEFT_S = 60.0
LEAST_ROOM = 64 << 10  # bytes
MOVE_AGAIN_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def _refusal(path: Path, problem: OSError) -> NomoatError:
    return NomoatError(f"cannot write {path}: {problem.strerror or problem}")


def no_room(path: Path) -> str:
    """Return what to add to an error about a file whose disk is full or read-only; else nothing.

    SQLite calls a full disk an I/O error where it cannot make its memory files.
    """
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        return f"; nothing may be written in {path.parent}: is the disk read-only?"
    try:
        full = shutil.disk_usage(path.parent).free < LEAST_ROOM
    except OSError:
        return ""
    return "; the disk is full: make room and start again" if full else ""


_asking = threading.Lock()


def _umask() -> int:
    """The bits that files of this process do not get; there is no way to ask but to set it."""
    with _asking:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


def replacing(
    path: Path, mode: int = 0o644, lasting: bool = True
) -> AbstractContextManager[BinaryIO]:
    """A new file that takes the place of `path` when the block ends without an error.

    lasting: it survives a power cut then, name and content; what tells of the moment need not, and
    spares the disk. Raises NomoatError, in one line, when the disk is full or the place cannot be
    written.
    """
    return _written_beside(path, mode, _replace, lasting)


def creating(path: Path, mode: int = 0o644) -> AbstractContextManager[BinaryIO]:
    """As `replacing`, but NomoatError if there is a file at `path` by then."""
    return _written_beside(path, mode, _link)


@contextlib.contextmanager
def appending(path: Path, keep: int | None = None, mode: int = 0o644) -> Iterator[BinaryIO]:
    """The file at its end, made if it is not there; on disk when the block has ended.

    keep: bytes of the file to keep; what a crash left behind them is cut off first. Raises
    NomoatError, in one line, when it cannot be written.
    """
    try:
        make_folder(path.parent)
        new = not path.exists()
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, mode), "r+b") as file:
            if keep is not None:
                file.truncate(keep)
            file.seek(0, os.SEEK_END)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if new:
            settle(path.parent)
    except OSError as problem:
        raise _refusal(path, problem) from problem


@contextlib.contextmanager
def _written_beside(
    path: Path, mode: int, move: Callable[[str, Path], None], lasting: bool = True
) -> Iterator[BinaryIO]:
    """A file beside `path`, for its owner's eyes until it is whole and moved there."""
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as problem:
        raise _refusal(path, problem) from problem
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.chmod(name, mode & ~_umask())
        move(name, path)
        if lasting:
            settle(path.parent)
    except OSError as problem:
        raise _refusal(path, problem) from problem
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def moving(path: Path, to: Path) -> None:
    """Move a file to its place, for good when this returns; OSError if it cannot be."""
    _replace(path, to)
    for folder in {to.parent, path.parent}:
        settle(folder)


def _replace(name: str | Path, path: Path) -> None:
    """os.replace, tried again for a moment where a reader keeps Windows from moving a file."""
    for wait_s in MOVE_AGAIN_S if sys.platform == "win32" else ():
        try:
            os.replace(name, path)
            return
        except PermissionError:
            time.sleep(wait_s)
    os.replace(name, path)


def _link(name: str, path: Path) -> None:
    try:
        os.link(name, path)  # unlike rename, fails if somebody was faster
    except FileExistsError:
        raise NomoatError(f"{path} exists already; move it away first") from None


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends without an error.

    At every instant the place holds the whole old folder, the whole new one, or (between two
    renames) nothing. Raises NomoatError as `replacing` does.
    """
    try:
        make_folder(folder.parent)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as problem:
        raise _refusal(folder, problem) from problem
    try:
        yield fresh
        fresh.chmod(0o755 & ~_umask())
        _move_over(fresh, folder)
    except OSError as problem:
        raise _refusal(folder, problem) from problem
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sweep(folder: Path, now: float | None = None) -> None:
    """Delete what killed processes left half written anywhere in a folder, a minute ago or longer.

    now: unix time.
    """
    before = (time.time() if now is None else now) - LEFT_S
    for path in folder.rglob(".*.part"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < before:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextlib.contextmanager
def held(lock: Path, taken: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file that the operating system releases with the process, however it ends.

    Raises NomoatError(taken) if another process, or another part of this one, holds it, and still
    does after `wait_s`.
    """
    connection = None
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(lock, timeout=wait_s, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except OSError as problem:
        raise _refusal(lock, problem) from problem
    except sqlite3.OperationalError as problem:
        if connection is not None:
            connection.close()
        if "locked" not in str(problem):
            raise NomoatError(f"cannot write {lock}: {problem}") from problem
        raise NomoatError(taken) from None
    try:
        yield
    finally:
        connection.close()


def _move_over(fresh: Path, folder: Path) -> None:
    mode = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY  # all that may be flushed there
    for file in fresh.iterdir():
        written = os.open(file, mode)
        try:
            os.fsync(written)
        finally:
            os.close(written)
    settle(fresh)
    old = fresh.with_suffix(".old")
    if folder.exists():
        _replace(folder, old)
    try:
        _replace(fresh, folder)
    except OSError:
        if old.exists():
            _replace(old, folder)
        raise
    settle(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
