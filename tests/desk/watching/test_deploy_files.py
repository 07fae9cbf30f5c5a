"""The dashboard and the alerts ask for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nomoat.desk.watching.metrics import RoundMetrics, StandingCollector, new_registry
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.rounds.watching import Traffic
from round_records import RECORDS

DEPLOY = Path(__file__).parents[3] / "deploy"
OURS = re.compile(r"\bnomoat_[a-z_]+")


def names(community: OpenCommunity) -> set[str]:
    """Every name of ours that is exported."""
    registry = new_registry()
    metrics = RoundMetrics(registry)
    for record in RECORDS:
        metrics.ended(record)
    registry.register(StandingCollector(community, dict, Traffic))
    text = generate_latest(registry).decode()
    families = text_string_to_metric_families(text)
    return {sample.name for family in families for sample in family.samples}


def test_the_dashboard_asks_for_metrics_that_there_are(community: OpenCommunity) -> None:
    board = json.loads((DEPLOY / "grafana" / "community.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in OURS.findall(target["expr"])
    }
    assert len(asked) > 10
    assert asked <= names(community)


def test_the_alerts_ask_for_metrics_that_there_are(community: OpenCommunity) -> None:
    text = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    asked = {name for line in text.splitlines() if "expr:" in line for name in OURS.findall(line)}
    assert len(asked) > 4
    assert asked <= names(community)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus")
def test_prometheus_reads_the_alerts_and_fires_them() -> None:
    checks = (("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml"))
    for arguments in checks:
        done = subprocess.run(
            ["promtool", *arguments],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
