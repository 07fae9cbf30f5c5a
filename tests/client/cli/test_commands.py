"""The volunteer's commands: what they say, and the exit codes scripts rely on."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from builders import community_info
from nomoat.aggregation.errors import NotJoined, Refused, RemoteProtocolError, Unreachable
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.invitation import Claims, issue
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.work_terms import WorkTerms
from nomoat.cli import app
from nomoat.client.cli import join as join_command
from nomoat.client.data.split import Split
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.membership.agreement import Agreement
from nomoat.client.membership.consent_sheet import sheet
from nomoat.client.sent.log import SentMessage, SentTensor
from nomoat.client.sent.log_file import LOG_NAME, SentLog
from nomoat.client.settings import VolunteerSettings
from nomoat.client.volunteer.status import alone
from nomoat.client.volunteer.status_writer import StatusWriter

KEY = SigningKey(b"\7" * 32)


def run(*arguments: str, text: str = "") -> Result:
    result = CliRunner().invoke(app, list(arguments), input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def info(**changes: object) -> CommunityInfo:
    values = {
        "public": KEY.public, "base_license": "apache-2.0", "base_bytes": 3_000_000,
        "adapter_values": 250_000, "local_steps": 12, "batch_size": 4, "seq_len": 64,
        "min_participants": 8, "allow_weak": False,
    }  # fmt: skip
    return community_info(**{**values, **changes})


SETTINGS = VolunteerSettings(
    address="localhost:1", name="ada", data=Path("/home/ada/d.jsonl"), base="pocket"
)
SPLIT = Split(Path("t"), Path("h"), 90, 10)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "home"))
    return Home.find()


@pytest.fixture
def folder(home: Home) -> CommunityFolder:
    made = home.folder(KEY.public)
    made.save_info(info())
    made.save(SETTINGS)
    return made


@pytest.mark.parametrize("command", ["status", "pause", "resume", "finish", "leave", "run"])
def test_without_a_community_every_command_says_how_to_join(command: str) -> None:
    with pytest.raises(NotJoined, match="nomoat join"):
        run(command)
    assert NotJoined.exit_code == 3


def test_a_link_that_is_none_and_a_coordinator_that_is_away(tmp_path: Path, home: Home) -> None:
    with pytest.raises(RemoteProtocolError, match="nomoat://"):
        run("join", "https://example.org", "--data", str(tmp_path))
    claims = Claims("localhost:1", bytes(32), KEY.public, bytes(16), 1, 2_000_000_000)
    with pytest.raises(Unreachable, match="is the coordinator running"):
        run("join", issue(claims, KEY).link(), "--data", str(tmp_path))
    assert Unreachable.exit_code == 4
    assert not home.root.exists()  # nothing was made before the sheet was accepted


def test_an_invitation_is_read_from_stdin_where_no_list_of_processes_shows_it(
    tmp_path: Path,
) -> None:
    claims = Claims("localhost:1", bytes(32), KEY.public, bytes(16), 1, 2_000_000_000)
    with pytest.raises(Unreachable, match="is the coordinator running"):
        run("join", "-", "--data", str(tmp_path), text=issue(claims, KEY).link() + "\n")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"secure": False}, "your updates are not masked"),
        ({"min_participants": 3, "allow_weak": True}, "summed among 3 only"),
    ],
)
def test_what_is_weak_is_accepted_by_its_own_name_or_not_at_all(
    changes: dict[str, object], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate: Any = SimpleNamespace(info=info(**changes))
    asked: list[str] = []
    answers = [False, True]

    def confirm(question: str, **_: object) -> bool:
        asked.append(question)
        return answers.pop(0)

    monkeypatch.setattr(join_command.typer, "confirm", confirm)
    with pytest.raises(Refused, match="--accept-weak"):
        join_command._agree_to_weak(candidate, yes=True, accept_weak=False)
    assert asked == []
    assert join_command._agree_to_weak(candidate, yes=True, accept_weak=True)
    with pytest.raises(Refused, match="not accepted"):
        join_command._agree_to_weak(candidate, yes=False, accept_weak=False)
    assert join_command._agree_to_weak(candidate, yes=False, accept_weak=False)
    assert all(named in question for question in asked)


def test_what_is_not_weak_is_asked_about_once() -> None:
    candidate: Any = SimpleNamespace(info=info())
    assert not join_command._agree_to_weak(candidate, yes=True, accept_weak=False)


def test_audits_are_on_the_sheet_and_accepted_by_their_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Agreement.of(info(), None)
    audited = replace(plain, audit_words=64)
    assert "Audit" not in sheet(info(), SETTINGS, SPLIT, 8, "cpu: fits", plain)
    shown = sheet(info(), SETTINGS, SPLIT, 8, "cpu: fits", audited)
    assert "of each update the coordinator learns 64 numbers" in shown
    assert "no sum here includes you" in shown
    assert "your update's size may not be audited" in shown
    agreed = SETTINGS.model_copy(update={"audit": True})
    shown = sheet(info(), agreed, SPLIT, 8, "cpu: fits", audited)
    assert "no sum here includes you" not in shown
    assert "your update's size may be audited" in shown
    asked: list[str] = []
    monkeypatch.setattr(
        join_command.typer, "confirm", lambda text, **_: bool(asked.append(text)) or len(asked) > 1
    )
    candidate: Any = SimpleNamespace(info=info(), agreed=audited)
    with pytest.raises(Refused, match="--accept-audit"):
        join_command._agree_to_audit(candidate, yes=True, accept_audit=False)
    assert join_command._agree_to_audit(candidate, yes=True, accept_audit=True)
    assert asked == []
    with pytest.raises(Refused, match="was not accepted"):
        join_command._agree_to_audit(candidate, yes=False, accept_audit=False)
    assert join_command._agree_to_audit(candidate, yes=False, accept_audit=False)
    none: Any = SimpleNamespace(info=info(), agreed=plain)
    assert not join_command._agree_to_audit(none, yes=True, accept_audit=False)


def test_the_sheet_says_what_binds_and_what_really_comes() -> None:
    terms = WorkTerms(
        TrainSettings(local_steps=12, learning_rate=5e-3), info().adapter_values, 25, bytes(64)
    )
    shown = sheet(info(), SETTINGS, SPLIT, 8, "cpu: fits", Agreement.of(info(), terms))
    megabytes = 3 * 4 * info().adapter_values / 1e6
    for words in ("about 12 steps", "learning rate 0.005", "up to 25 rounds a day",
                  "2 adapters to measure", "over 20 % more than this is declined",
                  f"Received     {megabytes:.1f} MB a round at most"):  # fmt: skip
        assert words in shown


def test_an_owners_own_rules_are_on_the_sheet_and_in_the_status(folder: CommunityFolder) -> None:
    own = SETTINGS.model_copy(update={"min_participants": 12, "repeats": 0})
    folder.save(own)
    words = "only among 12 or more; a failed round is not repeated with other members"
    assert words in sheet(info(), own, SPLIT, 8, "cpu: fits", Agreement.of(info(), None))
    assert words in run("status").stdout
    assert words in json.loads(run("status", "--json").stdout)["rules"]


def test_status_tells_a_stopped_a_waiting_and_a_paused_volunteer_apart(
    folder: CommunityFolder,
) -> None:
    assert json.loads(run("status", "--json").stdout)["doing"] == "stopped"
    with alone(folder):
        StatusWriter(folder).connected(1)
        shown = json.loads(run("status", "--json").stdout)
        assert (shown["doing"], shown["running"], shown["community"]) == ("waiting", True, "town")
        run("pause")
        shown = json.loads(run("status", "--json").stdout)
        assert (shown["doing"], shown["why"]) == ("paused", "until nomoat resume")
        run("resume")
        assert json.loads(run("status", "--json").stdout)["doing"] == "waiting"
        run("finish")
        assert json.loads(run("status", "--json").stdout)["finishing"] is True
    assert "stopped" in run("status").stdout


def test_status_names_devices_where_there_are_several(folder: CommunityFolder) -> None:
    folder.save(SETTINGS.model_copy(update={"device": "cuda:0,cuda:1"}))
    assert "trains on cuda:0, cuda:1\n" in run("status").stdout
    assert json.loads(run("status", "--json").stdout)["devices"] == ["cuda:0", "cuda:1"]
    folder.save(SETTINGS)
    assert "trains on" not in run("status").stdout


def test_status_says_how_the_last_update_was_hidden_and_among_how_many(
    folder: CommunityFolder,
) -> None:
    def said() -> str:
        return str(json.loads(run("status", "--json").stdout)["protection"])

    assert said().startswith("updates are masked; only their sum is ever seen")
    update = SentMessage(
        1.0, "town", "localhost:1", "sa.masked", 4, 9, "", True, (SentTensor("a", (2,)),)
    )  # fmt: skip
    sent_log = SentLog(folder.root)
    sent_log.record(replace(update, session_size=12))
    sent_log.record(SentMessage(2.0, "town", "localhost:1", "evaluate.measured", 4, 9, ""))
    assert said().startswith("secure: in round 4 the update left masked, one of 12;")
    signed = SentMessage(3.0, "town", "localhost:1", "sa.signed", 4, 9, "", session_size=7)
    sent_log.record(signed)  # five have dropped out after they were masked with
    assert said().startswith("weak: in round 4 the update left masked, one of 12, of whom 7 were")
    sent_log.record(replace(update, round=5, session_size=3))
    assert said().startswith("weak: in round 5 the update left masked, one of 3;")
    assert "protection weak: in round 5" in run("status").stdout
    sent_log.record(replace(update, round=6, masked=False))
    assert said() == "NONE in round 6: the coordinator saw this volunteer's update"
    (folder.root / LOG_NAME).write_bytes(b"{}\n")
    assert "sent log, line 1" in said()


def test_status_names_state_and_reason_in_one_line(folder: CommunityFolder) -> None:
    with alone(folder):
        writer = StatusWriter(folder)
        writer.connected(1)
        at = datetime(2026, 1, 5, 14, 2).timestamp()
        writer.hold("GPU in use by another program (steam)", at)
        writer.connected(1)  # the line's own news do not hide it
        line = run("status").stdout.splitlines()[0]
        assert line == "waiting: GPU in use by another program (steam), since 2026-01-05 14:02"
        writer.release()
        assert run("status").stdout.startswith("waiting: waiting for the coordinator")


def test_the_log_is_rotated_and_shown(folder: CommunityFolder) -> None:
    from nomoat.client.volunteer import runner

    kept = logging.getLogger().handlers[:]
    try:
        logging.getLogger().handlers.clear()
        runner.keep_logs([folder])
        for number in range(3 * runner.LOG_BYTES // 100):
            logging.getLogger("nomoat.client").info("%06d %s", number, "x" * 100)
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        logging.getLogger().handlers[:] = kept
        logging.getLogger().setLevel(logging.WARNING)
    assert folder.log.stat().st_size <= runner.LOG_BYTES
    assert folder.log.with_suffix(".log.1").exists()
    shown = run("logs", "-n", "2").stdout.splitlines()
    assert len(shown) == 2
    assert shown[-1].split()[-2] == f"{3 * runner.LOG_BYTES // 100 - 1:06d}"


def test_leaving_asks_deletes_and_works_without_the_coordinator(
    folder: CommunityFolder, home: Home
) -> None:
    from nomoat.client.identity.keys import identity

    identity(home.identity, lambda n: b"\5" * n)
    with pytest.raises(Exception, match="still a member"):
        run("leave", text="n\n")
    assert folder.settings.exists()
    result = run("leave", "--yes")  # nobody listens on localhost:1
    assert "left here all the same" in result.stderr
    assert not folder.root.exists()
    assert home.identity.exists()  # the identity is for all communities


def shown_by(community: CommunityInfo) -> str:
    return sheet(community, SETTINGS, SPLIT, 8, "cpu: fits", Agreement.of(community, None))


def test_the_sheet_says_what_leaves_and_what_stays() -> None:
    said = "cpu: training takes about 0.5 GB"
    shown = sheet(info(), SETTINGS, SPLIT, 8, said, Agreement.of(info(), None))
    for words in ("town", "pocket", "apache-2.0", "90 rows", "10 kept", "stays on this machine",
                  "1.0 MB", "takes about 0.5 GB", "only what is installed",
                  "ada", "8 or more begin it"):  # fmt: skip
        assert words in shown


def test_the_sheet_does_not_hide_weak_or_missing_protection() -> None:
    assert "NONE" in shown_by(info(secure=False))
    assert "weak" in shown_by(info(min_participants=3, allow_weak=True))


def test_the_sheet_says_when_the_owner_asks_for_peers_that_are_known_for_long() -> None:
    assert "Peers" not in shown_by(info())
    wary = SETTINGS.model_copy(update={"known_peers": 3, "known_days": 14.0})
    shown = sheet(info(), wary, SPLIT, 8, "cpu: fits", Agreement.of(info(), None))
    assert "only among 3 or more others that this machine has known for 14 days" in shown


def test_status_says_what_this_machine_declined_until_it_takes_part_again(
    folder: CommunityFolder,
) -> None:
    with alone(folder):
        writer = StatusWriter(folder)
        writer.working("train.local")
        writer.declined("0 other members are known to this machine for known_days, 2 must be")
        writer.answered("train.local", 10, False)
        shown = run("status").stdout
        assert shown.startswith("waiting: the last task was declined: 0 other members are known")
        writer.working("evaluate.heldout")
        writer.answered("evaluate.heldout", 10, False)  # what comes next does not hide it
        assert "this machine last declined: 0 other members" in run("status").stdout
        assert "known_days" in json.loads(run("status", "--json").stdout)["complaint"]
        writer.working("train.local")
        writer.trained()
        writer.answered("train.local", 10, False)
        assert "declined" not in run("status").stdout


def test_a_community_cannot_draw_on_the_terminal_or_fake_a_line() -> None:
    shown = shown_by(info(name="x\x1b[2J\nProtection   strong", about="a\rb"))
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert not any(line.startswith("Protection   strong") for line in shown.splitlines())


def test_the_sheet_says_what_bounds_memory_and_the_machine_holds_the_community_to_it() -> None:
    from nomoat.aggregation.protocol.terms.privacy_terms import PrivacyTerms
    from nomoat.aggregation.secagg.parameters import NoiseRule

    plain = Agreement.of(info(), None)
    assert plain.noise is None
    assert "Memorising   no differential privacy: nothing bounds" in sheet(
        info(), SETTINGS, SPLIT, 8, "cpu: fits", plain
    )
    agreed = plain.under(PrivacyTerms(0, 2.06476297948944, 8.0, 1e-6, 10, 2))
    shown = sheet(info(), SETTINGS, SPLIT, 8, "cpu: fits", agreed)
    assert "Memorising   differential privacy for each volunteer: epsilon 8 at delta 1e-06" in shown
    assert "over 10 sums at most" in shown
    assert agreed.noise == NoiseRule(2.06476297948944, 10, 2)
