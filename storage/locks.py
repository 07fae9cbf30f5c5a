"""Locks on open files that others may test and wait for, other users of this machine included.

`atomic.held` is for what one user's processes exclude each other from; its lock file must be
writable by all who look at it, which files in a shared folder are not. The operating system lets
go of these with the process, however it ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FAR = 1 << 30  # the byte that Windows locks: beyond the content, which stays readable


def lock(handle: int, wait: bool = False) -> bool:
    """Lock the open file for this handle alone; False if another has it and `wait` is not given."""
    return _lock(handle, wait=wait, shared=False)


def is_locked(path: Path) -> bool:
    """Tell whether anybody, in this process or another, has the file locked."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return not _lock(handle, wait=False, shared=True)
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, wait: bool, shared: bool) -> bool:
        del shared
        os.lseek(handle, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(handle: int, wait: bool, shared: bool) -> bool:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
