"""benchmarks/volunteer.py prints one object with the promised names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "volunteer.py"
PROMISED = {"step_ratio", "memory_error", "yield_s"}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes from /proc"),
    pytest.mark.timeout(500),
]


def test_json_prints_one_object_with_every_promised_name() -> None:
    command = [sys.executable, str(BENCHMARK), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    found = json.loads(line)
    assert found.keys() >= PROMISED
    assert all(found[name] > 0 for name in PROMISED)
    assert len(found["yields_s"]) == 2
