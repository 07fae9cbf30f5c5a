"""Text of a peer draws on no terminal, log or page: every place that shows it is walked here."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Error

from builders import community_info
from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import Decline
from nomoat.aggregation.protocol.receipts import Credit
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.cli.doctor import render_doctor
from nomoat.client.cli.output import say
from nomoat.client.cli.sent_page import render_credit, render_entry, render_preview
from nomoat.client.cli.status_page import render_status, status_json
from nomoat.client.connection.https import _reason
from nomoat.client.data.split import Split
from nomoat.client.doctor.checks import CheckResult, CheckStatus
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.membership.agreement import Agreement
from nomoat.client.membership.base_model import asked_for
from nomoat.client.membership.consent_sheet import sheet
from nomoat.client.sent.log import SentMessage, SentTensor
from nomoat.client.settings import VolunteerSettings
from nomoat.client.volunteer.status import activity, read_status
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.server.rounds.driver import _Carrying
from nomoat.storage.log_lines import PlainFormatter

EVIL = "ev\x1b[2Jil\r\u202e\x07\x9b31m"
FAKE = f"{EVIL}\nProtection   strong"
SETTINGS = VolunteerSettings(address="h:1", name="ada", data=Path("d"), base="pocket")
INFO = community_info(public=SigningKey(b"\7" * 32).public, name=FAKE[:80], about=FAKE,
                      base_model=FAKE, base_license=FAKE[:80])  # fmt: skip


def harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n")) and "\nProtection   strong" not in (
        "\n" + text
    )


def shown_sheet(_folder: CommunityFolder) -> str:
    split = Split(Path("t"), Path("h"), 9, 1)
    return sheet(INFO, SETTINGS, split, 8, "cpu: fits", Agreement.of(INFO, None))


def shown_base_question(_folder: CommunityFolder) -> str:
    return str(asked_for(INFO))


def shown_sent(_folder: CommunityFolder) -> str:
    tensors = (SentTensor(FAKE, (2, 2)),)
    entry = SentMessage(1.0, FAKE, FAKE, "sa.masked", 1, 9, "", True, tensors)
    credit = render_credit([Credit(b"c" * 32, 1, 1, 1, 2)], {b"c" * 32: FAKE})
    return "\n".join((render_entry(entry), render_preview(entry), credit))


def shown_status(folder: CommunityFolder) -> str:
    writer = StatusWriter(folder)
    writer.declined(FAKE)
    writer.refused(FAKE)
    writer.lost(FAKE, 1.0)
    writer.say("refused", FAKE)
    status = read_status(folder)
    now = activity(status, SimpleNamespace(paused=False, finish=False), False, None)  # type: ignore[arg-type]
    assert json.loads(json.dumps(status_json(folder, now, status, "weak")))
    return render_status(folder, now, status, "weak")


def shown_errors(_folder: CommunityFolder) -> str:
    problem = RemoteProtocolError(FAKE, "§5", FAKE)
    return "\n".join((str(NomoatError(FAKE)), str(Refused(FAKE)), str(problem), problem.reason))


def shown_log(_folder: CommunityFolder) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter("%(message)s"))
    handler.emit(logging.LogRecord("n", logging.WARNING, "f", 1, "refused: %s", (FAKE,), None))
    return stream.getvalue().rstrip("\n")


def shown_http_refusal(_folder: CommunityFolder) -> str:
    return _reason(json.dumps({"refused": FAKE}).encode())


def shown_name(folder: CommunityFolder) -> str:
    return folder.name()


def shown_doctor(_folder: CommunityFolder) -> str:
    return render_doctor([CheckResult("clock", CheckStatus.BAD, one_line(FAKE), one_line(FAKE))])


def shown_flower_error(_folder: CommunityFolder) -> str:
    """An error reply of a volunteer, of the code that our own seals use."""
    said: list[str] = []
    machine = SimpleNamespace(refuse=lambda _name, reason, _now: said.append(reason) or [])
    clock = SimpleNamespace(now=lambda: 0.0)
    carrying: Any = SimpleNamespace(_machine=machine, _driver=SimpleNamespace(clock=clock))
    reply: Any = SimpleNamespace(has_error=lambda: True, error=Error(1000, FAKE * 100))
    _Carrying._take(carrying, "mallory", reply)
    assert len(said[0]) <= 200
    return said[0]


PLACES = [value for name, value in list(globals().items()) if name.startswith("shown_")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommunityFolder:
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path))
    made = Home.find().folder(INFO.public)
    made.save(SETTINGS)
    monkeypatch.setattr(CommunityFolder, "info", lambda _self: INFO)
    return made


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_no_place_that_shows_a_peers_text_lets_it_draw_or_fake_a_line(
    place: Callable[[CommunityFolder], str], folder: CommunityFolder
) -> None:
    found = place(folder)
    assert "ev" in found  # it is shown
    assert harmless(found), ascii(found)


def test_what_is_said_to_the_terminal_has_no_control_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(f"joined {EVIL}")
    assert harmless(capsys.readouterr().err)


@pytest.mark.parametrize("text", ["a\x1b[2J", "a\x00", "a\x9bb", "a\x7f", "a\rb"])
def test_a_message_whose_text_has_control_bytes_is_refused(text: str) -> None:
    head = wire.encode(Decline(1, "ok")).head.replace(b"\xa2ok", b"\xa2" + b"ok")
    assert wire.decode(wire.Packet(head), Decline, "peer").reason == "ok"
    with pytest.raises(NomoatError, match="control characters"):
        wire.encode(Decline(1, text))
    hostile = head.replace(b"\xa2ok", bytes([0xA0 + len(text.encode())]) + text.encode())
    with pytest.raises(RemoteProtocolError, match="control characters"):
        wire.decode(wire.Packet(hostile), Decline, "peer")
