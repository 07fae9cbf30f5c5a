"""benchmarks/simulate.py prints one object with the promised names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "simulate.py"
PROMISED = {"overhead_ratio", "ray_ratio", "ray_ratio_100", "peak_mb", "ray_peak_mb"}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes from /proc"),
    pytest.mark.timeout(500),  # some 20 s of work, on a machine that does nothing else
]


@pytest.fixture(scope="module")
def printed() -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARK), "--quick", "--json", "--without-ray"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_json_prints_one_object_with_every_promised_name(printed: dict[str, Any]) -> None:
    assert printed.keys() >= PROMISED
    assert printed["overhead_ratio"] > 0
    assert printed["peak_mb"] > 100  # torch alone takes more


def test_what_needs_ray_is_null_without_it(printed: dict[str, Any]) -> None:
    assert [printed[name] for name in sorted(PROMISED) if name.startswith("ray")] == [None] * 3


def test_ours_and_bare_end_with_the_same_loss(printed: dict[str, Any]) -> None:
    assert printed["losses"]["bare"] == pytest.approx(printed["losses"]["ours"], rel=0.02)
