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
    "--eval-rows 2 --quiet --json"
)

pytestmark = pytest.mark.timeout(600)  # it imports everything, and starts workers


def test_every_module_is_imported_without_what_macos_and_windows_lack_and_a_federation_simulated(
    tmp_path: Path,
) -> None:
    """One program, because importing what we use is what costs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NOMOAT_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "as_on.py"), *SIMULATED.split(), "--out", "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = dict(line.split() for line in done.stdout.splitlines()[:2])
    assert imported.keys() == {"darwin", "win32"}
    assert all(int(modules) > 500 for modules in imported.values())
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") >= 2
