"""Processes of ours run the installed package, wherever they are started."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nomoat.simulations.loopback.processes import PROGRAM


def test_a_clone_in_the_current_folder_does_not_hide_the_package(tmp_path: Path) -> None:
    (tmp_path / "nomoat").mkdir()
    done = subprocess.run(
        [*PROGRAM, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
