"""benchmarks/deployment.py prints one object with the promised names, of real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "deployment.py"
PROMISED = {
    "round_overhead_s",
    "secure_round_overhead_s",
    "stock_ratio",
    "idle_cpu_fraction",
    "idle_rss_mb",
    "coordinator_mb_per_volunteer",
    "bytes_ratio",
}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads processes from /proc"),
    pytest.mark.timeout(1200),  # about a minute, on a machine that does nothing else
]


@pytest.fixture(scope="module")
def printed() -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARK), "--quick", "--json", "--without-stock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_json_prints_one_object_with_every_promised_name(printed: dict[str, Any]) -> None:
    assert printed.keys() >= PROMISED
    assert printed["round_overhead_s"] > 0
    assert printed["secure_round_overhead_s"] is None  # the quick one masks its crowds alone
    assert [peak["volunteers"] for peak in printed["peaks"]] == [2, 3]
    assert printed["idle_rss_mb"] > 20  # an interpreter takes more
    assert printed["stock_ratio"] is None  # it was not asked for


def test_a_round_s_bytes_are_what_a_packet_capture_counts(printed: dict[str, Any]) -> None:
    if printed["bytes_ratio"] is None:
        pytest.skip("this user may not capture packets")
    sent = printed["bytes_per_volunteer_and_round"]
    assert sent["dropped_packets"] == 0
    assert printed["bytes_ratio"] == pytest.approx(1, abs=0.05)
    assert sent["captured_up"] > 4 * printed["values"]  # a plain report, float32
    assert sent["captured_down"] > 8 * printed["values"]  # to train, and to evaluate
