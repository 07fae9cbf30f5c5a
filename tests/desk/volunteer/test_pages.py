"""A volunteer's page says what its files say, gives the orders of the commands, and shows text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from builders import adapter, community_info
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.lineage import Version, sign
from nomoat.aggregation.protocol.receipts import Receipt, issue
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.audit.evidence import ProvenLie
from nomoat.client.data.split import prepare
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.identity.keys import identity
from nomoat.client.machine import owner_orders
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.membership import standing, version_history
from nomoat.client.sent.log import SentMessage, SentTensor
from nomoat.client.sent.log_file import LOG_NAME, SentLog
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training.base_loss import BaseLossFile
from nomoat.client.volunteer.measurements import MeasurementsFile, path_of
from nomoat.client.volunteer.status import alone
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.client.volunteer.telling import desktop_notices
from nomoat.desk.volunteer.limits_form import save, wanted
from nomoat.desk.volunteer.owner_commands import until_tomorrow_s
from nomoat.desk.volunteer.site import volunteer_site
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.training.steps import TrainingStep

KEY = SigningKey(b"\7" * 32)
HOSTILE = "<script>alert(1)</script>\u202egnp.exe"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    identity(made.identity, lambda count: b"\1" * count)
    return made


def joined(home: Home, name: str = "town", public: bytes = KEY.public) -> CommunityFolder:
    data = home.root / "rows.jsonl"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text('{"text": "one two three"}\n{"text": "four five six"}\n{"text": ""}\n')
    folder = home.folder(public)
    folder.save_info(community_info(name=name, public=public))
    folder.save(VolunteerSettings(address="localhost:1", name="ada", data=data, base="pocket"))
    return folder


def sent(number: int, **changes: object) -> SentMessage:
    made = SentMessage(
        100.0 + number, "town", "localhost:1", "sa.masked", number, 1000, f"{number:02x}" * 32,
        masked=True, tensors=(SentTensor("q", (4, 2)),), norm=1.5, session_size=9,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_state_and_its_reason_are_one_sentence(home: Home, browser: Callable) -> None:
    folder = joined(home)
    see = browser(volunteer_site(home).app)
    assert "Not running: nomoat run starts it." in see.html("/")
    with alone(folder):
        StatusWriter(folder).working("train.local")
        assert "Working: training the adapter on your rows." in see.html("/")
        StatusWriter(folder).lost("localhost:1 does not answer", 8.0)
        assert "Not training: localhost:1 does not answer; next try in 8 s." in see.html("/")


def test_pause_resume_and_finish_are_the_commands_orders(home: Home, browser: Callable) -> None:
    folder = joined(home)
    see = browser(volunteer_site(home).app)
    see.send("/order", order="pause-2h", community=folder.root.name)
    orders = owner_orders.read(folder.root)
    assert orders.paused_until is not None
    assert 7100 < orders.paused_until.timestamp() - time.time() <= 7200
    see.send("/order", order="pause")
    assert owner_orders.read(folder.root).paused_until is None
    see.send("/order", order="resume")
    assert not owner_orders.read(folder.root).paused
    assert "not running" in see.send("/order", order="finish")
    with alone(folder):
        see.send("/order", order="finish")
    assert owner_orders.read(folder.root).finish
    assert "no such order" in see.send("/order", order="rm -rf")


def test_until_tomorrow_is_the_next_days_morning_by_the_wall_clock() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    evening = datetime(2026, 10, 24, 22, tzinfo=berlin)  # an hour is repeated in this night
    assert until_tomorrow_s(evening) == 10 * 3600
    early = datetime(2026, 6, 1, 1, tzinfo=berlin)
    assert until_tomorrow_s(early) == 30 * 3600


def test_each_order_is_for_the_community_that_is_shown(home: Home, browser: Callable) -> None:
    town, city = joined(home), joined(home, "city", SigningKey(b"\2" * 32).public)
    see = browser(volunteer_site(home).app)
    page = see.html(f"/?community={city.root.name}")
    assert "city · on this machine" in page
    assert town.root.name in page
    see.send("/order", order="pause", community=city.root.name)
    assert owner_orders.read(city.root).paused
    assert not owner_orders.read(town.root).paused


def test_what_left_is_shown_with_its_receipts_and_filtered(home: Home, browser: Callable) -> None:
    folder = joined(home)
    log = SentLog(folder.root)
    for number in (1, 2, 3):
        log.record(sent(number))
    log.record(sent(4, message="evaluation", masked=False, tensors=(), norm=None))
    mine = identity(home.identity, bytes).public
    log.keep(issue(Receipt(KEY.public, mine, 2, b"\2" * 32, 70, 200), KEY))
    see = browser(volunteer_site(home).app)
    page = see.html("/sent")
    assert "Verified" in page
    assert "1 updates have the community" in page
    assert page.count("masked, one of 9") == 3
    assert page.count(">signed</td>") == 1
    assert "your update, masked · <code>sa.masked</code>" in page
    assert ">70</dd>" in page
    found = see.html("/sent?round=2")
    assert "1 of 4 messages" in found
    assert "2 of 4 messages" not in see.html("/sent?message=evaluation")


def test_a_log_that_was_changed_is_not_shown_as_verified(home: Home, browser: Callable) -> None:
    folder = joined(home)
    log = SentLog(folder.root)
    log.record(sent(1))
    file = folder.root / LOG_NAME
    file.write_bytes(file.read_bytes().replace(b'"round":1', b'"round":7'))
    page = browser(volunteer_site(home).app).html("/sent")
    assert "NOT verified" in page
    assert "sent log, line 1" in page


def test_data_are_counted_with_every_reason(home: Home, browser: Callable) -> None:
    folder = joined(home)
    see = browser(volunteer_site(home).app)
    assert "was not read yet" in see.html("/data")
    split = prepare(folder.load().data, folder.split, 0.1)
    page = see.html("/data")
    assert f"<dt>rows read</dt><dd>{split.read}</dd>" in page
    with alone(folder):
        cut = RowUse(2, 64, 1, ())
        StatusWriter(folder).rows("train", cut)
    assert "of the rows to train on: 1 of 2 cut off at 64 tokens" in see.html("/data")
    assert split.dropped[0].reason.replace("'", "&#39;") in page


def test_limits_are_written_where_the_owner_writes_them(home: Home, browser: Callable) -> None:
    folder = joined(home)
    text = folder.settings.read_text()
    folder.settings.write_text(text.replace("[machine]", '[machine]\nignored_programs = ["obs"]'))
    see = browser(volunteer_site(home).app)
    form = {"max_temperature_c": "75", "schedule-all": "22:00-07:00", "cpu_share": "50,5"}
    see.send("/limits", **form, yield_gpu="on")
    machine = folder.load().machine
    assert machine.max_temperature_c == 75
    assert machine.schedule == {"all": ("22:00-07:00",)}
    assert machine.cpu_share == 0.505
    assert 'value="50.5"' in see.html("/limits")
    assert "in 63 of the week&#39;s 168 hours" in see.html("/limits")
    assert machine.ignored_programs == ("obs",)
    assert machine.yield_gpu
    assert "# GPU, or the processor without one" in folder.settings.read_text()
    see.send("/limits", yield_gpu="on")
    assert folder.load().machine == MachineSettings(ignored_programs=("obs",))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"max_temperature_c": "hot"}, "is no number"),
        ({"max_temperature_c": "500"}, "max_temperature_c"),
        ({"schedule-mon": "25:00-26:00"}, "schedule"),
    ],
)
def test_limits_that_cannot_be_change_nothing(home: Home, form: dict[str, str], said: str) -> None:
    folder = joined(home)
    before = folder.settings.read_text()
    with pytest.raises(UsageError, match=said):
        save(folder, wanted(form, folder.load().machine))
    assert folder.settings.read_text() == before


@pytest.mark.parametrize("path", ["/", "/sent", "/data", "/limits", "/model", "/log"])
def test_hostile_names_are_shown_as_text(home: Home, browser: Callable, path: str) -> None:
    folder = joined(home, HOSTILE)
    joined(home, "other" + HOSTILE, SigningKey(b"\2" * 32).public)
    SentLog(folder.root).record(sent(1, message=HOSTILE, to=HOSTILE))
    StatusWriter(folder).refused(HOSTILE)
    folder.log.write_text(HOSTILE)
    page = browser(volunteer_site(home).app).html(path)
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert" in page


def test_versions_that_came_are_listed_with_the_loss_here(home: Home, browser: Callable) -> None:
    folder, key = joined(home), KEY
    for number, mine in ((0, None), (1, 2.5678)):
        about = (adapter(number).digest, b"b" * 32, number, "fedavg", ("ada",))
        version = Version(number, b"p" * 32, *about, 3.1, 3.2, None, "", 100 + number)
        record = sign(version, key)
        folder.save_version(record)
        version_history.note(folder.root, record, mine)
    see = browser(volunteer_site(home).app)
    page = see.html("/model")
    assert "Versions so far" in page
    assert "Loss by version, nats per token. on your rows" in page
    assert "2.5678" in page
    assert "not known yet" in page
    with alone(folder):
        StatusWriter(folder).measured(2.5678, None)
        StatusWriter(folder).say("waiting", "")
    BaseLossFile.within(folder.root).keep("rows", 3.0678)
    version_history.note(folder.root, record, 2.5, 3.0678)
    assert '<td class="n">0.5000</td>' in see.html("/model")


def test_who_is_held_can_answer_and_recompute_on_the_page(
    home: Home, browser: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = joined(home)
    see = browser(volunteer_site(home).app)
    writer = StatusWriter(folder)
    writer.say("refused", "another version is spoken there")
    assert "Appeal" not in see.html("/")
    why = standing.explained(Standing.HELD, f"too large; evidence {'ab' * 32}")
    writer.say("refused", why)
    page = see.html("/")
    assert "Refused: held: too large" in page
    assert "Recompute the evidence here" in page
    said: list[str] = []
    monkeypatch.setattr(standing, "appeal", lambda _folder, _coordinator, text: said.append(text))
    assert "has your appeal" in see.send("/case", order="appeal", text="it is mended")
    assert said == ["it is mended"]
    found = ProvenLie(b"k" * 32, 7, "its update is 2.9 times the bound")
    monkeypatch.setattr(standing, "recomputed", lambda *_: found)
    assert "Round 7: its update is 2.9 times" in see.send("/case", order="recompute")
    assert "no such order" in see.send("/case", order="burn")


def test_notices_on_the_desktop_are_off_until_the_owner_wants_them(
    home: Home, browser: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = joined(home)
    see = browser(volunteer_site(home).app)
    assert not folder.load().desktop_notices
    monkeypatch.setattr(desktop_notices, "installed", lambda: False)
    assert "pip install desktop-notifier" in see.send("/notices", notices="on")
    assert not folder.load().desktop_notices
    monkeypatch.setattr(desktop_notices, "installed", lambda: True)
    see.send("/notices", notices="on")
    assert folder.load().desktop_notices
    see.send("/notices")
    assert not folder.load().desktop_notices


def test_a_home_without_a_community_says_how_to_join(home: Home, browser: Callable) -> None:
    assert "nomoat join" in browser(volunteer_site(home).app).html("/")


def test_a_training_is_shown_while_it_is_under_way_and_not_after(
    home: Home, browser: Callable
) -> None:
    folder = joined(home)
    see = browser(volunteer_site(home).app)
    with alone(folder):
        writer = StatusWriter(folder)
        file = MeasurementsFile(path_of(folder), frozenset)
        writer.working("train.local")
        assert "Step" not in see.html("/")
        file.stepped(TrainingStep(5, 20, 2.5, 10.0))
        page = see.html("/")
        assert "Step 5 of 20, loss 2.5000, about 30 s left" in page
        assert '<progress max="20" value="5">' in page
        assert "temperature" not in page  # no sensor has said anything
        writer.answered("train.local", 10, False)
        assert "Step" not in see.html("/")
        writer.working("train.local")
        assert "Step" not in see.html("/")  # of the training before
    assert "Step" not in see.html("/")
