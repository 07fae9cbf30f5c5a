"""Names that survive a power cut: a file's own sync does not cover the name it has in its folder.

POSIX lets a rename, and the order of two, be lost until the folder itself is synced (fsync(2)).
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

UNSUPPORTED = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS})


def settle(folder: Path) -> None:
    """Return when the names in a folder are on disk; OSError if the disk fails.

    Where folders cannot be opened or synced (Windows, some network file systems) nothing is done.
    """
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # one that may be written in, but not read
        return
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are not there; their names are on disk then."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        settle(folder.parent)
