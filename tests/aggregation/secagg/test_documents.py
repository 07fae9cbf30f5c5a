"""docs/protocol.md says what the code does: its tables are generated, its paragraphs exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nomoat.aggregation.secagg.parameters import DEFAULT_ASSUMPTIONS
from nomoat.aggregation.secagg.thresholds import is_weak, thresholds

ROOT = Path(__file__).parents[3]
OURS = [
    *sorted((ROOT / "aggregation" / "secagg").rglob("*.py")),
    ROOT / "aggregation" / "sums" / "fixed_point.py",
    ROOT / "aggregation" / "sums" / "packing.py",
]
ELSEWHERE = re.compile(r"RFC|NIST|arXiv|doi:|et al")


def paragraphs() -> set[str]:
    text = (ROOT / "docs" / "protocol.md").read_text()
    return set(re.findall(r"^## (§\d+)", text, re.M)) | set(
        re.findall(r"\*\*(§\d+\.\d+)\*\*", text)
    )


def test_generated_tables_are_in_step_with_the_code():
    check = [sys.executable, str(ROOT / "docs" / "tables.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_paragraph_that_the_code_cites_exists(path):
    lines = [line for line in path.read_text().splitlines() if not ELSEWHERE.search(line)]
    cited = set(re.findall(r"§\d+(?:\.\d+)?", "\n".join(lines)))
    assert cited <= paragraphs()


def test_paragraphs_are_numbered_once_and_in_order():
    text = (ROOT / "docs" / "protocol.md").read_text()
    sections = [int(n) for n in re.findall(r"^## §(\d+)", text, re.M)]
    assert sections == list(range(1, len(sections) + 1))
    numbers = [tuple(map(int, n)) for n in re.findall(r"\*\*§(\d+)\.(\d+)\*\*", text)]
    assert numbers == sorted(set(numbers))


def test_the_table_of_small_sessions_in_the_threat_model_is_what_the_code_computes():
    text = (ROOT / "docs" / "threat-model.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (.*)\|$", text, re.M)
    assert len(rows) >= 6
    for n, t, corrupt, dropouts, remark in rows:
        found = thresholds(int(n), DEFAULT_ASSUMPTIONS)
        assert (found.shares, found.quorum) == (int(t), int(t))
        assert found.corrupt == int(corrupt)
        assert int(n) - found.survivors == int(dropouts)
        assert remark.startswith("weak") == is_weak(int(n))
