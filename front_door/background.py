"""A command of ours that goes on without the terminal it was typed in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def start(arguments: Sequence[str], out: Path) -> subprocess.Popen[bytes]:
    """Start `nomoat ARGUMENTS` in a session of its own; what it says goes to the file `out`.

    On Windows: in a process group of its own without a console, whose end would be its end.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    with out.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "nomoat", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            creationflags=flags,
        )
