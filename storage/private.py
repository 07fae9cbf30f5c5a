"""Files that hold secrets: made whole, readable by their owner alone, refused otherwise.

A root module because both the coordinator's and the volunteer's room need it, and neither may
import the other.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from nomoat.aggregation.errors import NomoatError


def write_private(path: Path, data: bytes) -> None:
    """Write `data` with mode 0600, all of it or nothing; never through a readable moment."""
    os.replace(_temporary(path, data), path)


def create_private(path: Path, data: bytes) -> None:
    """As write_private, but NomoatError if the file is there already: keys are never replaced."""
    temporary = _temporary(path, data)
    try:
        os.link(temporary, path)  # unlike rename, fails if somebody was faster
    except FileExistsError:
        raise NomoatError(f"{path} exists already; move it away first") from None
    finally:
        temporary.unlink()


def read_private(path: Path, what: str) -> bytes:
    """Read a secret; NomoatError if others can read it, or if it cannot be read."""
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise NomoatError(
                f"{what} {path} is readable by others (mode {stat.S_IMODE(mode):04o}); "
                f"run: chmod 600 {path}"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise NomoatError(f"{what} {path} is missing") from None
    except OSError as problem:
        raise NomoatError(f"{what} {path} cannot be read: {problem.strerror}") from None


def _temporary(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise NomoatError(f"cannot write {path}: {problem.strerror}") from None
    return Path(name)
