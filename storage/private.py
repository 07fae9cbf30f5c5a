"""Files that hold secrets: made whole, readable by their owner alone, refused otherwise."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.storage.atomic import creating, replacing

PRIVATE = 0o600


def write_private(path: Path, data: bytes) -> None:
    """Write `data` with mode 0600, all of it or nothing; never through a readable moment."""
    with replacing(path, PRIVATE) as file:
        file.write(data)


def create_private(path: Path, data: bytes) -> None:
    """As write_private, but NomoatError if the file is there already: keys are never replaced."""
    with creating(path, PRIVATE) as file:
        file.write(data)


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


def check_own(path: Path) -> None:
    """PermissionError unless it is this account's and nobody else may write it; OSError if gone."""
    found = path.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    if os.name == "posix" and (found.st_uid != os.geteuid() or found.st_mode & others):
        raise PermissionError(f"{path} is not this account's alone")


def keep_to_owner(root: Path, parts: Iterable[Path]) -> None:
    """Make a folder its owner's alone, with `parts` of it and all that this process will make.

    NomoatError if somebody else owns it, who could put other files in their place.
    """
    os.umask(0o077)
    if os.name != "posix" or not root.exists():
        return
    if root.stat().st_uid != os.geteuid() and os.geteuid() != 0:
        raise NomoatError(f"{root} belongs to another user; make it yours, or set NOMOAT_HOME")
    for path in (root, *(inner for part in parts for inner in (part, *part.rglob("*")))):
        try:
            mode = path.lstat().st_mode
            if mode & 0o077 and not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode) & 0o700)
        except FileNotFoundError:
            continue  # what a running volunteer has just replaced
        except OSError as problem:
            raise NomoatError(f"{path} is open to others: {problem.strerror}") from None
