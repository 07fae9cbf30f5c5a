"""benchmarks/gpu.py goes on after a part that fails, and prints one object at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"

pytestmark = pytest.mark.timeout(400)


def test_the_table_names_its_rows_where_there_is_no_gpu() -> None:
    command = [sys.executable, "-P", str(BENCHMARK.with_name("gpu_check.py")), "--dry"]
    done = subprocess.run(
        [*command, "--only", "out of memory,does not fit"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named = [line.partition("most  ")[2] for line in done.stdout.splitlines()]
    assert [name.partition(":")[0] for name in named] == [
        "out of memory in the middle",
        "a base that does not fit",
    ]


def test_a_part_that_fails_says_so_and_hides_no_other() -> None:
    command = [sys.executable, "-P", str(BENCHMARK), "--quick", "--json", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--parts", "nothing,plain"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["step_ratio_plain"] > 0
    assert "failed: KeyError" in done.stderr
