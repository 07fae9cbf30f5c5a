"""What `nomoat up` tells of itself, and what a full disk may not do to it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nomoat.server.console import ConsoleLines
from nomoat.server.host import StateFile, back_off_s, until_next_look_s
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress
from nomoat.server.state_file import forget


def state_file(path: Path) -> StateFile:
    return StateFile(path, 8443, ConsoleLines(as_json=False, quiet=True), lambda: {"ada": 1})


def test_a_new_phase_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = state_file(path)
    for phase in ("training", "aggregating", "evaluating"):
        file.progress(RoundProgress(1, phase, 0, 3))
        assert json.loads(path.read_text())["phase"] == phase


def test_each_phase_of_the_present_round_is_noted_with_the_time_it_began(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = state_file(path)
    for number, phase in ((1, "training"), (1, "aggregating"), (2, "training")):
        file.progress(RoundProgress(number, phase, 0, 3))
        file.progress(RoundProgress(number, phase, 1, 3))
    state = json.loads(path.read_text())
    assert [name for name, _ in state["begun"]] == ["training"]
    file.progress(RoundProgress(2, "evaluating", 0, 3))
    begun = json.loads(path.read_text())["begun"]
    assert [name for name, _ in begun] == ["training", "evaluating"]
    assert begun[0][1] <= begun[1][1]


def test_who_is_no_member_any_more_is_forgotten(tmp_path: Path) -> None:
    path, online, members = tmp_path / "state.json", {"ada": 1, "ben": 2}, ["ada", "ben"]
    lines = ConsoleLines(as_json=False, quiet=True)
    ways = (
        lambda: online,
        None,
        {"software": lambda: dict.fromkeys(online, "nomoat 1")},
        lambda: members,
    )
    StateFile(path, 8443, lines, *ways).progress(RoundProgress(1, "training", 0, 2))
    assert path.read_text().count("ben") == 3
    members.remove("ben")
    del online["ben"]
    StateFile(path, 8443, lines, *ways).progress(RoundProgress(2, "training", 0, 2))
    assert "ben" not in path.read_text()
    assert json.loads(path.read_text())["seen"].keys() == {"ada"}


def test_a_name_is_taken_out_of_a_state_while_nobody_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    forget(path, "ben")  # there is none yet
    assert not path.exists()
    said = {"round": 3, "online": ["ada", "ben"], "seen": {"ben": 5, "ada": 6}}
    path.write_text(json.dumps(said))
    forget(path, "ben")
    assert json.loads(path.read_text()) == {"round": 3, "online": ["ada"], "seen": {"ada": 6}}


def test_losses_with_own_parts_stand_in_the_line_of_a_round(capsys: Any) -> None:
    lines, record = (
        ConsoleLines(as_json=False, quiet=False),
        RoundRecord(1, True, "fine", loss=3.25),
    )
    lines.ended(record)
    lines.ended(replace(record, personal_loss=3.0521))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(", held-out loss 3.2500")
    assert second == f"{first}, with own parts 3.0521"


def test_a_state_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").touch()
    file = state_file(tmp_path / "file" / "state.json")
    with caplog.at_level(logging.WARNING):
        file.progress(RoundProgress(1, "training", 0, 3))
        file.ended(RoundRecord(1, True, ""))
    assert caplog.text.count("cannot write") == 1


@pytest.mark.parametrize(("abandoned", "seconds"), [(1, 1), (2, 2), (5, 16), (9, 256), (99, 300)])
def test_each_abandoned_round_in_a_row_is_waited_after_longer(
    abandoned: int, seconds: float
) -> None:
    assert back_off_s(abandoned) == seconds


def test_up_says_how_the_updates_of_a_round_were_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ConsoleLines(as_json=False, quiet=False)
    lines.ended(
        RoundRecord(1, True, "improved", ("ada",), ("ada",), session="weak: 3 participants")
    )
    assert "weak: 3 participants" in capsys.readouterr().err


def test_what_volunteers_show_of_their_software_stays_known_when_they_are_away(
    tmp_path: Path,
) -> None:
    here = {"ada": "nomoat 1, Linux"}
    for shown in (here, {}):
        file = replace(
            state_file(tmp_path / "state.json"), told={"software": lambda shown=shown: shown}
        )
        file.progress(RoundProgress(1, "training", 0, 3))
        assert json.loads((tmp_path / "state.json").read_text())["software"] == here


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.0, 0.1), (0.0008, 0.1), (0.01, 1.0)])
def test_waiting_for_however_many_takes_a_hundredth_of_a_core_at_most(
    took_s: float, pause_s: float
) -> None:
    assert until_next_look_s(took_s) == pytest.approx(pause_s)
    assert took_s / (took_s + until_next_look_s(took_s)) <= 0.01
