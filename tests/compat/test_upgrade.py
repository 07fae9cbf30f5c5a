"""A community and its two volunteers, made by the release before, go on together with this one."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from commands_here import CommandsHere

from nomoat.server.engines.schema import STEPS

HERE = Path(__file__).parent
ARITHMETIC = HERE.parent / "end_to_end" / "arithmetic.py"  # training is what it always was
PORT = 60145  # their invitations named it
MADE_AT = "/made/here"
ROUND_S = 400.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def made_before(tmp_path: Path) -> Path:
    """Everything as it was left, where it may be changed."""
    shutil.copytree(HERE / "model", tmp_path / "model")
    with tarfile.open(HERE / "people.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    for path in [tmp_path / "community/community.toml", *tmp_path.rglob("settings.toml")]:
        path.write_text(path.read_text().replace(MADE_AT, str(tmp_path)))
    return tmp_path


def schema(root: Path) -> int:
    """The schema's number in a community's database."""
    with sqlite3.connect(root / "community/community.db") as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def test_coordinator_and_volunteers_of_the_release_before_go_on(made_before: Path) -> None:
    assert schema(made_before) == 4
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NOMOAT_ROUNDS__MAX_ROUNDS": "2"}
    with CommandsHere(made_before, environment=environment, port=PORT) as federation:
        federation.up()
        volunteers = replace(federation, program=(sys.executable, str(ARITHMETIC)))
        volunteers.rerun("ada")
        volunteers.rerun("ben")
        federation.wait("the next round", lambda: len(federation.records()) > 0, ROUND_S)
        (record,) = federation.records()
        assert record.round == 2
        assert record.committed, record.reason
        assert record.contributors == ["ada", "ben"]
        where = str(federation.folder)
        assert '"ok": true' in federation.call("adapter", "verify", "--json", "--dir", where)
        federation.call("sent", "--verify", home="ada")
    assert schema(made_before) == len(STEPS)
