"""Whatever happens to a community and its volunteers, every promise holds in the end.

More lives: make life LIVES=1000. A life that breaks a promise is kept here by its seed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nomoat.server.backup import sealing
from postgres import programs
from tests.life.world import live, template

LIVES = int(os.environ.get("LIVES", "4"))
ELSEWHERE = 4  # of so many lives one has its records in PostgreSQL
FIRST = int(os.environ.get("FIRST_LIFE", "0"))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: lives write a lot, and sync each time."""
    fast = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=fast if os.access(fast, os.W_OK) else None))
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def made(memory: Path) -> Path:
    return template(memory / "template")


def in_the_folder() -> None:
    return None


@pytest.mark.parametrize("seed", range(FIRST, FIRST + LIVES))
def test_every_promise_holds_at_the_end_of_a_life(
    seed: int,
    made: Path,
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(sealing, "COST", 2**4)
    root = memory / f"life-{seed}"
    elsewhere = seed % ELSEWHERE == ELSEWHERE - 1 and programs() is not None
    database = request.getfixturevalue("postgres").schema if elsewhere else in_the_folder
    try:
        assert live(seed, made, root, database=database) == []
    finally:
        shutil.rmtree(root, ignore_errors=True)
