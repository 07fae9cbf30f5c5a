"""Standard output and error that take any text: no encoding, closed pipe or missing one ends us."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from typing import TextIO

LEAST_COLUMNS = 70  # narrower, drawn help is cut


def prepare() -> None:
    """Have what an encoding lacks written as an escape (\\u20ac), what is closed go nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with the descriptor closed, or without a console
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def plain_help_unless_drawn() -> None:
    """Have help written plainly, and no name of an option cut, where boxes do not fit."""
    import typer.core

    if not sys.stdout.isatty() or shutil.get_terminal_size().columns < LEAST_COLUMNS:
        typer.core.HAS_RICH = False


def error(text: str) -> None:
    """Write a line to standard error, if anybody reads it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def flushed() -> bool:
    """Flush both; False if that cannot be, and then nothing more is written."""
    return all([_flushed(sys.stdout), _flushed(sys.stderr)])


def _flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError as problem:
        _discard(stream)
        if not isinstance(problem, BrokenPipeError):
            error(f"nomoat: cannot write what was to be said: {problem.strerror}")
        return False
    except ValueError:  # closed
        return True
    return True


def _discard(stream: TextIO) -> None:
    """Let what is still buffered go to the null device when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
