"""Status and wishes pass through files; a lock says whether a volunteer runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builders import community_info
from nomoat.aggregation.errors import BadData, NomoatError, Refused
from nomoat.client.cli.status_page import render_status
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.readings import Orders
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training.shared_worker import TURN
from nomoat.client.volunteer.assemble import _explained
from nomoat.client.volunteer.status import Activity, alone, paused, read_status, running
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.lora.data.conversations import Dropped
from nomoat.lora.data.row_counts import RowUse


@pytest.fixture
def folder(tmp_path: Path) -> CommunityFolder:
    made = CommunityFolder(tmp_path / "community")
    made.save_info(community_info())
    return made


def test_counts_of_an_earlier_process_go_on(folder: CommunityFolder) -> None:
    first = StatusWriter(folder)
    for late, sent in ((False, 1000), (True, 10)):
        first.working("train.local")
        first.trained()
        first.answered("train.local", sent, late)
    first.working("evaluate.heldout")
    first.answered("evaluate.heldout", 5, False)
    first.version(3)
    again = StatusWriter(folder).status
    assert (again.rounds, again.answered, again.late, again.sent_bytes) == (1, 3, 1, 1015)
    assert again.version == 3


def test_who_is_put_out_is_so_since_it_was_first_told_through_questions_and_restarts(
    folder: CommunityFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def since(why: str, at: float, writer: StatusWriter) -> float:
        monkeypatch.setattr(time, "time", lambda: at)
        writer.refuse(why)
        state = read_status(folder)
        assert state is not None
        assert (state.doing, state.why) == ("refused", why)
        return state.since

    writer = StatusWriter(folder)
    assert since("held: late; waiting", 100.0, writer) == 100.0
    assert since("held: late; waiting", 220.0, writer) == 100.0
    again = StatusWriter(folder)
    again.lost("localhost:1 does not answer", 8.0)
    assert since("held: late; waiting", 340.0, again) == 100.0
    again.say("stopped", "the owner stopped it")
    again = StatusWriter(folder)
    again.lost("localhost:1 does not answer", 8.0)
    assert since("held: late; waiting", 380.0, again) == 100.0
    assert since("banned", 400.0, again) == 400.0
    again.connected(1)
    assert since("banned", 500.0, again) == 500.0


def test_status_says_why_it_is_not_training(folder: CommunityFolder) -> None:
    writer = StatusWriter(folder)
    writer.lost("localhost:1 does not answer", 8.0)
    state = read_status(folder)
    assert state is not None
    assert (state.doing, state.why) == (
        "connecting",
        "localhost:1 does not answer; next try in 8 s",
    )
    writer.connected(1)
    writer.answered("train.local", 0, True)
    state = read_status(folder)
    assert state is not None
    assert "too late" in state.why


def test_a_lost_line_does_not_hide_that_it_is_training(folder: CommunityFolder) -> None:
    writer = StatusWriter(folder)
    writer.working("train.local")
    writer.lost("gone", 1.0)
    writer.connected(7)
    state = read_status(folder)
    assert state is not None
    assert state.doing == "working"


def test_work_that_is_done_and_cannot_be_sent_is_not_said_to_go_on(folder: CommunityFolder) -> None:
    writer = StatusWriter(folder)
    writer.working("train.local")
    writer.unsent("this machine's clock is 86400 s behind the coordinator's", 8.0)
    state = read_status(folder)
    assert state is not None
    assert state.doing == "connecting"
    assert state.why.startswith(
        "an answer waits to be sent; this machine's clock is 86400 s behind"
    )
    writer.answered("train.local", 9, False)
    state = read_status(folder)
    assert state is not None
    assert (state.doing, state.answered) == ("waiting", 1)


def test_who_waits_for_another_communitys_training_does_not_say_that_it_works(
    folder: CommunityFolder,
) -> None:
    def said() -> tuple[str, str]:
        state = read_status(folder)
        assert state is not None
        return state.doing, state.why

    writer = StatusWriter(folder)
    writer.working("train.local")
    writer.queued(TURN)
    assert said() == ("waiting", TURN)
    writer.connected(1)
    assert said()[0] == "waiting"
    writer.hold("the owner paused it", 1_700_000_000.0)
    assert said() == ("waiting", "the owner paused it")
    writer.release()
    writer.queued(None)
    assert said() == ("working", "train.local")


def test_a_damaged_or_missing_file_is_no_state(folder: CommunityFolder) -> None:
    assert read_status(folder) is None
    for text in ("{", '{"unknown": 1}', "[]"):
        folder.status.write_text(text)
        assert read_status(folder) is None


def test_a_full_disk_does_not_hide_why_nothing_is_trained(
    folder: CommunityFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StatusWriter(folder)
    writer.lost("a reason that is rather long, to be overwritten by a short one", 1.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    writer.hold("disk almost full", 1_700_000_000.0)
    state = read_status(folder)
    assert state is not None
    assert (state.doing, state.why) == ("waiting", "disk almost full")


def test_a_pause_ends_at_its_time_or_by_resume() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert not paused(Orders(), noon)
    assert paused(Orders(paused=True), noon)
    for_an_hour = Orders(paused=True, paused_until=noon + timedelta(hours=1))
    assert paused(for_an_hour, noon)
    assert not paused(for_an_hour, noon + timedelta(hours=1))


def test_a_community_runs_once_and_a_killed_process_leaves_no_lock(folder: CommunityFolder) -> None:
    assert not running(folder)
    program = (
        "import sys, time; from pathlib import Path\n"
        "from nomoat.client.home import CommunityFolder\n"
        "from nomoat.client.volunteer.status import alone\n"
        "with alone(CommunityFolder(Path(sys.argv[1]))): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert running(folder)
    with pytest.raises(NomoatError, match="running on this machine already"), alone(folder):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    assert not running(folder)


def test_what_ended_a_volunteer_at_its_start_is_what_status_says(folder: CommunityFolder) -> None:
    """Under a service, exit codes are seen by nobody."""
    with pytest.raises(BadData), _explained(folder):
        raise BadData("d.jsonl has no row to train on")
    state = read_status(folder)
    assert state is not None
    assert (state.doing, state.why) == ("stopped", "d.jsonl has no row to train on")
    StatusWriter(folder).say("refused", "banned by the coordinator")
    with pytest.raises(Refused), _explained(folder):
        raise Refused("banned")
    state = read_status(folder)
    assert state is not None
    assert state.doing == "refused"


def test_rows_that_a_rounds_length_drops_or_cuts_are_told_and_survive_a_restart(
    folder: CommunityFolder,
) -> None:
    folder.save_info(community_info(secure=False))
    folder.save(VolunteerSettings(address="h:1", name="ada", data=Path("d"), base="pocket"))
    dropped = (Dropped("no trained token left after cutting to 64", 12, "d.jsonl:3"),)
    writer = StatusWriter(folder)
    writer.rows("train", RowUse(90, 64, 5, dropped))
    writer.rows("measure", RowUse(10, 64, 0, ()))
    writer.say("waiting", "for a round")
    for status in (writer.status, read_status(folder), StatusWriter(folder).status):
        shown = render_status(folder, Activity("waiting", "…", True), status, "")
        assert (
            "of the rows to train on 12 of 90 not used (12: no trained token left after cutting "
            "to 64 (first: d.jsonl:3)), 5 of 90 cut off at 64 tokens"
        ) in shown
        assert "to measure with" not in shown
