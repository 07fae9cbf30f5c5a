"""Our code needs nothing of this system that Windows and macOS lack: no fork, no Unix modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SIMULATED = (
    "simulate --volunteers 2 --rounds 1 --local-steps 1 --seq-len 32 --batch-size 1 --workers 1 "
    "--quiet --json"
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


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_every_module_is_imported_without_what_that_system_lacks(
    platform: str, tmp_path: Path
) -> None:
    done = as_on(platform, tmp_path, "--version")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 500


def test_a_federation_is_simulated_where_processes_cannot_be_forked(tmp_path: Path) -> None:
    done = as_on("win32", tmp_path, *SIMULATED.split(), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") >= 2
