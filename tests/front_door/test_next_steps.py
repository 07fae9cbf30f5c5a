"""`nomoat` alone says in ten lines what one can do next, from where this machine stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from builders import community_info
from nomoat.cli import app
from nomoat.client.home import Home
from nomoat.client.settings import VolunteerSettings
from nomoat.client.volunteer.status import alone
from nomoat.next_steps import next_steps
from nomoat.server.community.folder import Folder
from nomoat.storage.atomic import held


def joined(home: Home, key: bytes, name: str) -> None:
    folder = home.folder(key)
    folder.save_info(community_info(name=name, public=key))
    folder.save(VolunteerSettings(address="localhost:1", name="ada", data=Path("d"), base="b"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_an_empty_machine_is_told_how_to_begin(home: Home, tmp_path: Path) -> None:
    said = next_steps(home, tmp_path)
    for command in ("nomoat try", "nomoat simulate", "nomoat join", "nomoat init"):
        assert command in said


def test_a_member_is_told_what_runs_and_how_to_look_at_it(home: Home, tmp_path: Path) -> None:
    joined(home, b"k" * 32, "town")
    said = next_steps(home, tmp_path)
    assert "not running; nomoat run starts it" in said
    assert "nomoat init" not in said
    with alone(home.joined()[0]):
        assert ": running" in next_steps(home, tmp_path)


def test_a_community_here_and_runs_to_compare_are_seen(home: Home, tmp_path: Path) -> None:
    (tmp_path / "town").mkdir()
    (tmp_path / "town" / "community.toml").touch()
    for number in (1, 2):
        (tmp_path / "runs" / str(number)).mkdir(parents=True)
        (tmp_path / "runs" / str(number) / "config.toml").touch()
    said = next_steps(home, tmp_path)
    assert "nomoat up town" in said
    (tmp_path / "town" / "state.json").write_text('{"pid": 1}')
    with held(Folder(tmp_path / "town").up_lock, ""):
        up = next_steps(home, tmp_path)
    assert "nomoat page link town" in up
    assert "nomoat up town" not in up
    assert "nomoat compare runs/*" in said


def test_it_is_ten_lines_at_most_and_names_only_commands_there_are(
    home: Home, tmp_path: Path
) -> None:
    for number in range(6):
        joined(home, bytes([number]) * 32, f"town{number}")
        (tmp_path / f"c{number}").mkdir()
        (tmp_path / f"c{number}" / "community.toml").touch()
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for said in (
        next_steps(home, tmp_path),
        next_steps(Home(tmp_path / "none"), tmp_path / "none"),
    ):
        assert len(said.splitlines()) <= 10
        assert set(re.findall(r"\bnomoat ([a-z]+)", said)) <= known


def test_without_arguments_it_is_said_and_ends_well(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_HOME", str(home.root))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0
    assert "nomoat try" in done.stdout
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout
