"""Our code needs nothing of this system that Windows and macOS lack: no fork, no Unix modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SIMULATED = (
    "simulate --volunteers 2 --rounds 1 --local-steps 1 --seq-len 32 --batch-size 1 --workers 1 "
    "--eval-rows 2 --quiet --json"
)


def as_on(platform: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command as on that system."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NOMOAT_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-P", str(HERE / "as_on.py"), platform, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def imported(done: subprocess.CompletedProcess[str]) -> int:
    """How many modules of ours were, by a command that went well."""
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[0])


def test_every_module_is_imported_without_what_macos_lacks(tmp_path: Path) -> None:
    assert imported(as_on("darwin", tmp_path, "--version")) > 500


def test_every_module_is_imported_and_a_federation_simulated_without_what_windows_lacks(
    tmp_path: Path,
) -> None:
    done = as_on("win32", tmp_path, *SIMULATED.split(), "--out", str(tmp_path / "run"))
    assert imported(done) > 500
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") >= 2
