"""What was begun before goes on: a run that was killed, and a community with a round behind it."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from commands_here import CommandsHere, nomoat

HERE = Path(__file__).parent
# What the code that began the run ended it with, on the machine that made it.
ENDED_WITH = 5.6363504344019395
STEP_S = 240.0

pytestmark = pytest.mark.timeout(400)


def printed(*arguments: str) -> Any:
    """The object a command prints."""
    done = nomoat(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything, the present folder; key files are their owner's alone."""
    for name in ("model", "run"):
        shutil.copytree(HERE / name, tmp_path / name)
    shutil.copy(HERE / "rows.jsonl", tmp_path)
    with tarfile.open(HERE / "community.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_gone_on_with_and_ends_near_where_it_would_have(begun: Path) -> None:
    before = [json.loads(line) for line in (begun / "run/metrics.jsonl").read_text().splitlines()]
    summary = printed("simulate", "--out", "run", "--resume", "--json", "--quiet")
    after = [json.loads(line) for line in (begun / "run/metrics.jsonl").read_text().splitlines()]
    assert after[: len(before)] == before
    assert [record["committed"] for record in after] == [True] * 4
    assert summary["community"]["loss"] == pytest.approx(ENDED_WITH, abs=1e-2)


def test_a_communitys_versions_are_listed_shown_and_verified(begun: Path) -> None:
    where = ("--dir", "community")
    listed = printed("adapter", "list", "--json", *where)
    assert [version["round"] for version in listed] == [0, 1]
    assert listed[1]["contributors"] == ["ada", "ben"]
    assert printed("adapter", "show", *where) == listed[1]
    assert printed("adapter", "verify", "--json", *where) == {"versions": 2, "ok": True}
    names = [one["name"] for one in printed("volunteers", "--json", "community")]
    assert names == ["ada", "ben"]


def test_a_community_is_opened_and_invites(begun: Path) -> None:
    (begun / "community/state.json").unlink()
    environment = {"OMP_NUM_THREADS": "1", "NOMOAT_BASE__FOLDER": str(begun / "model")}
    with CommandsHere(begun, environment=environment) as federation:
        federation.up()
        federation.wait("the port", lambda: bool(federation.hosted()), STEP_S)
        assert federation.invite(1).startswith("nomoat://join/")
        assert federation.processes["up"].poll() is None
