"""Commands typed in the test's process: the same code, without a second of a core for its start.

A command whose worker needs torch would take seven seconds; here it comes from a server that is up.
"""

from __future__ import annotations

import io
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from nomoat.__main__ import main
from nomoat.aggregation.errors import NomoatError
from nomoat.simulations.loopback.processes import LoopbackFederation


def typed(
    program: Callable[[], object],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> CompletedProcess[str]:
    """Run a program's main function as if it were a process of its own."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    code: str | int | None = None
    with (
        mock.patch.dict(os.environ, environment or {}),
        mock.patch("sys.argv", list(arguments)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            program()
        except SystemExit as end:
            code = end.code
        if isinstance(code, str):
            err.write(f"{code}\n")
    number = code if isinstance(code, int) else int(code is not None)
    return CompletedProcess(arguments, number, _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def nomoat(*arguments: str, environment: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Type `nomoat ARGUMENTS`."""
    return typed(main, "nomoat", *arguments, environment=environment)


def script(path: Path, *arguments: str) -> CompletedProcess[str]:
    """Type `python PATH ARGUMENTS`; the file has a function called main."""
    with mock.patch("sys.path", [str(path.parent), *sys.path]):
        found = runpy.run_path(str(path), run_name=path.stem)
        return typed(found["main"], str(path), *arguments)


class CommandsHere(LoopbackFederation):
    """A LoopbackFederation that starts no process for a command that ends by itself."""

    def call(self, *arguments: str, home: str = "operator") -> str:
        """Run a command to its end; its stdout. NomoatError with its last line if it fails."""
        done = nomoat(*arguments, environment=self._environment(home))
        if done.returncode != 0:
            last = done.stderr.strip().rpartition("\n")[2]
            raise NomoatError(f"nomoat {arguments[0]}: {last}")
        return done.stdout
