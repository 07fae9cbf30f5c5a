"""No request, however broken, is answered with a 500, and none leaves memory behind.

A few hundred here; `make hostile` sends twenty thousand.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import psutil

from tests.hostile.fuzz import OpenPort

REQUESTS = int(os.environ.get("NOMOAT_HOSTILE_REQUESTS", "300"))
BATCH = 1000
GROWTH_BYTES = 64 << 20


def test_broken_requests_are_refused_and_forgotten(tmp_path: Path) -> None:
    port, process = OpenPort(tmp_path), psutil.Process()
    try:
        port.send(port.requests(100, 0))  # what is made once, is made now
        before, statuses = process.memory_info().rss, Counter[int]()
        for seed, at in enumerate(range(0, REQUESTS, BATCH), 1):
            answered = port.send(port.requests(min(BATCH, REQUESTS - at), seed))
            statuses.update(status for status, _ in answered)
            assert [request for status, request in answered if status >= 500] == []
        grown = process.memory_info().rss - before
        assert grown <= GROWTH_BYTES, f"{grown >> 20} MB"
        assert statuses[200] > REQUESTS / 50  # some of it was what a member may say
        assert port.registrar.roster().members["ada"].standing == "approved"
        assert "ada" in port.registrar.roster().approved().values()
        assert port.problems == []
    finally:
        port.close()
