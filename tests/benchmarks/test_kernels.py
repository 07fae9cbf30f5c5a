"""benchmarks/kernels.py compares the ways it promises to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "kernels.py"

pytestmark = pytest.mark.timeout(500)


def test_json_prints_one_object_with_every_way() -> None:
    command = [sys.executable, str(BENCHMARK), "--quick", "--json", "--ways", "sdpa,eager"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["step_ms"]) == {"sdpa", "eager"}
    assert found["over_sdpa"]["sdpa"] == 1.0
    assert found["over_sdpa"]["eager"] > 0
