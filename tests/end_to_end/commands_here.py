"""A federation whose commands run in the test's process; what lasts is a process of its own.

`init`, `invite`, `status`, `sent` … are the same code either way, and a process takes a second of
a core to start (`init`, whose worker needs torch, seven). `up`, `join` and `run` are processes.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from nomoat.__main__ import main
from nomoat.aggregation.errors import NomoatError
from nomoat.simulations.loopback.processes import LoopbackFederation


class CommandsHere(LoopbackFederation):
    """A LoopbackFederation that starts no process for a command that ends by itself."""

    def call(self, *arguments: str, home: str = "operator") -> str:
        """Run a command to its end; its stdout. NomoatError with its last line if it fails."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with (
            mock.patch.dict(os.environ, self._environment(home)),
            mock.patch.object(sys, "argv", ["nomoat", *arguments]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
                code: object = None
            except SystemExit as end:
                code = end.code
        shown, said = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
        if code:
            raise NomoatError(f"nomoat {arguments[0]}: {(said.strip() or '?').splitlines()[-1]}")
        return str(shown)
