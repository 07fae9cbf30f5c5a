"""The coordinator's page shows what the community wrote down, and gives its commands' orders."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.history.appeal import Appeal
from nomoat.aggregation.protocol.invitation import from_link
from nomoat.aggregation.secagg.audit.evidence import to_bytes
from nomoat.desk.coordinator.public_page import export
from nomoat.desk.coordinator.shelf import version_rows
from nomoat.desk.coordinator.site import coordinator_site
from nomoat.desk.watching.event_log import EventLog, path_of
from nomoat.desk.watching.events import CommunityEvent, of_round
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.conduct.cases import Cases
from nomoat.server.release.releasing import ReleaseState
from nomoat.server.release.releasing import order as say
from nomoat.server.release.rolling_back import heed, waiting
from nomoat.server.rounds.records import RoundRecord
from round_records import RECORDS, renamed, write_rounds
from tests.aggregation.secagg.audit.liars import session
from tests.aggregation.secagg.conftest import Federation

HOSTILE = "<script>alert(1)</script>\u202egnp.exe"
PATHS = (
    "/", "/round?number=1", "/volunteers", "/volunteer?name=ada", "/invitations", "/versions",
    "/version?number=2", "/settings", "/events", "/machine",
)  # fmt: skip


@pytest.fixture
def see(community: OpenCommunity, browser: Callable) -> Any:
    return browser(coordinator_site(community, lambda: {"ada": 1}).app)


def test_a_round_says_who_was_asked_ready_summed_late_and_refused(
    community: OpenCommunity, see: Any
) -> None:
    write_rounds(community)
    page = see.html("/round?number=1")
    for name, value in (("Asked", "3"), ("Trained to the end", "3"), ("In the sum", "2")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    people = re.findall(r'data-name="Volunteer">(\w+)</td>.*?-text">([^<]*)</td>', page)
    assert people == [
        ("cleo", "late or gone"), ("dan", "refused"), ("ada", "in the sum"), ("ben", "in the sum"),
    ]  # fmt: skip
    assert "too late to report" in page
    assert "its seal does not hold" in page
    assert "weak: 2 participants" in page
    assert "from 2.4000 to 3.4000 over volunteers" in page
    widths = [float(x) for x in re.findall(r'width="([\d.]+)" height="4"', page)]
    assert widths == [60.0, 30.0, 10.0]


def test_who_is_in_the_sum_has_trained_even_if_it_was_late_to_measure(
    community: OpenCommunity, see: Any
) -> None:
    abandoned = replace(RECORDS[1], committed=False, train_seconds={}, dropped={"ada": "gone"})
    write_rounds(community, abandoned)
    page = see.html("/round?number=1")
    assert "<dt>Trained to the end</dt><dd>2</dd>" in page
    assert re.search(r">ada</td>.*>yes</td>.*>in the sum</td>.*>gone</td>", page)


def test_rounds_are_counted_as_they_ended(community: OpenCommunity, see: Any) -> None:
    first = see.html("/")
    assert "None has ended yet." in first
    assert "Nobody has joined yet." in first
    write_rounds(community)
    page = see.html("/")
    assert "<dt>rounds ended, of 100</dt><dd>2</dd>" in page
    assert "<dt>of them committed</dt><dd>1</dd>" in page
    assert "1010 B" in page  # up, all rounds
    assert "abandoned" in page
    assert "Nobody has joined yet." not in page
    assert "Held-out loss by round, nats per token. mean of volunteers" in page
    later = replace(RECORDS[1], round=3)
    write_rounds(community, later)
    assert "<dt>rounds ended, of 100</dt><dd>3</dd>" in see.html("/")


def test_no_page_shows_what_a_single_volunteer_lost_or_moved(
    community: OpenCommunity, see: Any
) -> None:
    secret = replace(
        RECORDS[1], train_loss={"ada": 0.98765, "ben": 0.12321}, losses={"ada": 2.34567, "ben": 3.4}
    )
    write_rounds(community, secret)
    for path in PATHS:
        page = see.html(path)
        assert "0.9877" not in page
        assert "0.1232" not in page
    assert "ada 2.3457" not in see.html("/round?number=1")


def test_volunteers_are_approved_held_and_banned_with_a_reason(
    community: OpenCommunity, enrol: Callable, see: Any
) -> None:
    enrol("ada")
    assert "pending" in see.html("/volunteers")
    assert "ada is approved" in see.send(
        "/volunteers", name="ada", order="approve", back="/volunteers"
    )
    assert "approved, online" in see.html("/volunteers")
    see.send("/volunteers", name="ada", order="hold", reason="sends nothing")
    page = see.html("/volunteers")
    assert "held" in page
    assert "sends nothing" in page
    see.send("/volunteers", name="ada", order="ban", reason="spam")
    assert community.registrar.database.applicant("ada").standing.value == "banned"  # type: ignore[union-attr]
    assert "no volunteer is called" in see.send("/volunteers", name="eve", order="ban")
    assert "no such order" in see.send("/volunteers", name="ada", order="erase")


def test_volunteers_are_shown_with_what_they_run_and_when_they_were_there(
    community: OpenCommunity, enrol: Callable, see: Any
) -> None:
    enrol("cy")
    state = {"seen": {"cy": 1_790_000_000}, "software": {"cy": "nomoat 1, <b>Linux</b>"}}
    (community.folder.root / "state.json").write_text(json.dumps(state))
    page = see.html("/volunteers")
    assert "Seen last" in page
    assert "Runs nomoat 1, &lt;b&gt;Linux&lt;/b&gt;" in page
    assert "Protocol: not seen." in page
    state["spoken"] = {"cy": "2-3"}
    (community.folder.root / "state.json").write_text(json.dumps(state))
    assert "Protocol: 2 to 3: none of 1." in see.html("/volunteers")
    (community.folder.root / "state.json").write_text('{"seen": 7, "software": [1]}')
    assert "Runs" not in see.html("/volunteers")


def test_each_phase_of_the_present_round_has_its_seconds_so_far(
    community: OpenCommunity, see: Any
) -> None:
    now = time.time()
    begun = [["waiting for volunteers", now - 100], ["training", now - 90], ["aggregating", now]]
    state = {"round": 3, "phase": "aggregating", "answered": 1, "asked": 2, "begun": begun}
    note = community.folder.root / "state.json"
    note.write_text(json.dumps({**state, "at": now}))
    page = see.html("/")
    assert "waiting for volunteers 10 s</li>" in page
    assert "training 1 min 30 s</li>" in page
    assert re.search(r'aria-current="step">aggregating \d', page)
    assert "<li>evaluating</li>" in page
    note.write_text(json.dumps({**state, "at": now - 500}))  # it was killed then
    assert "aggregating 0" in see.html("/")


def test_losses_that_fit_nothing_are_told_where_a_coordinator_looks(
    community: OpenCommunity, enrol: Callable, see: Any
) -> None:
    enrol("ada")
    write_rounds(community, *(replace(RECORDS[1], round=n, misfits=("ada",)) for n in (1, 2)))
    assert "<dt>Losses that fit nothing</dt>" in see.html("/round?number=2")
    told = "its loss fitted nothing in 2 of the last 8 sums; not heard while that lasts"
    assert told in see.html("/volunteers")


def test_a_case_shows_evidence_computed_again_and_the_answer_to_it(
    community: OpenCommunity, enrol: Callable, see: Any
) -> None:
    made = session(Federation, {3}, size=400)
    made.run()
    evidence = to_bytes(made.server.proofs[made.ids[3]])
    enrol("ada")
    see.send("/volunteers", name="ada", order="approve")
    assert "Look at the case" not in see.html("/volunteers")
    see.send("/volunteers", name="ada", order="hold", reason="too large")
    cases = Cases(community.registrar.database)
    cases.keep("ada", 3, evidence, 100)
    cases.keep("ada", 4, b"not evidence", 101)
    identity = community.registrar.roster().members["ada"].binding.identity
    cases.hear(community.registrar, identity, Appeal(HOSTILE + "\nsorry"), 200)
    assert 'href="/volunteer?name=ada"' in see.html("/volunteers")
    page = see.html("/volunteer?name=ada")
    assert "Held: too large." in page
    assert f"recomputed here just now</span>: {made.server.blamed[made.ids[3]]}" in page
    assert "does NOT hold" in page
    assert "&lt;script&gt;alert(1)" in page
    back = "/volunteer?name=ada"
    assert "Approved." in see.send("/volunteers", name="ada", order="approve", back=back)


def test_a_version_is_held_with_a_reason_and_released_again(
    community: OpenCommunity, see: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: community.versions.get(None).version.at + 1.0)
    said = see.send("/release", number="2", order="hold", reason="rude", back="/version?number=2")
    assert "Version 2 is held." in said
    assert "Held: it is not given out." in said
    assert "Held by a person: rude." in said
    assert "Version 2 is released." in see.send("/release", number="2", order="release")
    for number, order in (("2", "burn"), ("x", "hold"), ("99", "hold")):
        assert "Not done" in see.send("/release", number=number, order=order)


def test_an_invitation_is_shown_once_with_its_code_and_can_be_revoked(
    community: OpenCommunity, see: Any
) -> None:
    page = see.send("/invite", uses="5", expires="36h", back="/invitations")
    link = re.search(r"nomoat://join/[^ &<']+", page)
    assert link is not None
    claims = from_link(link[0]).claims
    assert claims.uses == 5
    assert 'src="data:image/svg+xml;base64,' in page
    assert "found on this machine only" in page
    assert "nomoat://" not in see.html("/invitations")
    see.send("/revoke", identifier=claims.identifier.hex())
    assert community.registrar.database.invitation(claims.identifier).revoked  # type: ignore[union-attr]
    assert "uses: give a number" in see.send("/invite", uses="-1")
    assert "is not a duration" in see.send("/invite", uses="1", expires="for ever")


def test_a_version_has_its_card_its_distance_and_a_peft_folder(see: Any) -> None:
    page = see.html("/version?number=2")
    assert "community adapter, version 2" in page
    assert "What moved since version 1" in page
    assert "Go back to version 2?" in page
    packed = see.client.get("/version.zip?number=2")
    names = zipfile.ZipFile(io.BytesIO(packed.content)).namelist()
    assert "version-2/adapter_model.safetensors" in names
    assert "3 versions: chain, signatures and files are whole" in see.send("/verify")
    assert "no version 9" in see.html("/version?number=9")
    assert "no such number" in see.html("/version?number=x")


def test_going_back_waits_for_the_end_of_a_round_and_the_page_says_so(
    community: OpenCommunity, see: Any
) -> None:
    said = see.send("/rollback", number="1", reason=HOSTILE, back="/version?number=1")
    assert "goes back to version 1 when no round is under way" in said
    assert "goes back to version 1 when no round is under way" in see.html("/version?number=2")
    ordered = waiting(community)
    assert ordered is not None
    assert (ordered.to, ordered.reason) == (1, "<script>alert(1)</script> gnp.exe")
    assert community.versions.get(None).version.number == 2
    heed(community, 9)
    assert "gnp.exe" in see.html("/versions")
    assert "<script>alert" not in see.html("/versions")
    for wrong in ("x", "", "-1", "9" * 10):
        assert "no such order" in see.send("/rollback", number=wrong)
    assert "no version 9" in see.send("/rollback", number="9")
    see.client.post("/rollback", data={"number": "1", "form_token": "another"})
    assert waiting(community) is None


def test_settings_are_changed_in_the_file_and_only_those_that_may_be(
    community: OpenCommunity, see: Any
) -> None:
    file = community.folder.settings
    before = file.read_text()
    form = {"rounds.round_every": "60", "community.about": 'a "town"', "rounds.secure": "false"}
    said = see.send("/settings", **form, back="/settings")
    assert "Written: community.about, rounds.round_every" in said
    settings = community.folder.load()
    assert settings.rounds.round_every == 60
    assert settings.community.about == 'a "town"'
    assert settings.rounds.secure
    assert "# Who you are." in file.read_text()
    assert len(file.read_text().splitlines()) == len(before.splitlines())


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds.fraction", "2"), ("rounds.max_rounds", "many"), ("community.admission", "all")],
)
def test_a_setting_that_cannot_be_changes_nothing(
    community: OpenCommunity, see: Any, name: str, value: str
) -> None:
    before = community.folder.settings.read_text()
    assert "Not done" in see.send("/settings", **{name: value, "rounds.round_every": "9"})
    assert community.folder.settings.read_text() == before


def test_events_are_searched_by_kind_round_and_text(community: OpenCommunity, see: Any) -> None:
    log = EventLog(path_of(community.folder), 1 << 20)
    for record in RECORDS:
        log(of_round(record, 100.0 + record.round))
    log(CommunityEvent(200.0, "volunteer.hold", fields={"volunteer": "ben", "reason": "asleep"}))
    log.close()
    with path_of(community.folder).open("a") as file:
        file.write('{"at": 1, "ev')  # a line that a kill cut off
    assert see.html("/events").count("<tr>") == 1 + 4
    assert "asleep" in see.html("/events?name=volunteer.")
    assert see.html("/events?round=2").count("<tr>") == 1 + 1
    assert see.html("/events?text=ASLEEP").count("<tr>") == 1 + 1
    assert "Nothing that fits" in see.html("/events?text=nothing+like+it")


@pytest.mark.parametrize("path", PATHS)
def test_hostile_names_and_reasons_are_shown_as_text(
    community: OpenCommunity, enrol: Callable, see: Any, path: str
) -> None:
    write_rounds(community, *(renamed(record, HOSTILE) for record in RECORDS))
    enrol("ada")
    see.send("/volunteers", name="ada", order="approve")
    see.send("/volunteers", name="ada", order="hold", reason=HOSTILE)
    log = EventLog(path_of(community.folder), 1 << 20)
    log(CommunityEvent(1.0, HOSTILE, 1, HOSTILE, {HOSTILE: HOSTILE}))
    log.close()
    page = see.html(path)
    assert "<script>alert" not in page
    assert "\u202e" not in page


def test_a_reason_is_bounded(see: Any) -> None:
    said = see.send("/volunteers", name="ada", order="ban", reason="x" * 201)
    assert "200 characters" in said


def test_an_empty_community_has_every_page(see: Any) -> None:
    for path in PATHS:
        if not path.startswith("/round?"):
            assert "nomoat" in see.html(path)
    assert "has not ended here" in see.html("/round?number=1")
    assert "no volunteer is called that" in see.html("/volunteer?name=ada")


def test_a_record_without_what_later_ones_have_is_shown(community: OpenCommunity, see: Any) -> None:
    write_rounds(community, RoundRecord(0, True, "the base model"))
    assert "the base model" in see.html("/")
    assert "–" in see.html("/round?number=0")


def test_settings_view_never_shows_a_private_key(community: OpenCommunity, see: Any) -> None:
    secret = community.folder.community_key.read_text().strip()
    for path in PATHS:
        if not path.startswith("/round?"):
            assert secret not in see.html(path)
    with pytest.raises(UsageError):
        community.versions.get(99)


def test_the_public_page_has_versions_and_rules_and_nobodys_name(
    community: OpenCommunity, enrol: Callable, tmp_path: Path
) -> None:
    write_rounds(community)
    enrol("ada")
    to = tmp_path / "public"
    html = export(community, to).read_text()
    assert sorted(file.name for file in to.iterdir()) == ["desk.css", "index.html"]
    assert "<h1>town</h1>" in html
    assert html.count("<tr>") == 1 + 3
    assert "by invitation, and each is approved" in html
    for name in ("ada", "ben", "cleo", "dan"):
        assert not re.search(rf"\b{name}\b", html)
    assert "<script" not in html
    assert "spread" not in html  # the best and the worst loss are somebody's
    with pytest.raises(UsageError):
        export(community, to)


def test_the_public_page_says_which_version_is_given_out_and_what_is_held(
    community: OpenCommunity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rounds(community)
    monkeypatch.setattr("time.time", lambda: community.versions.get(None).version.at + 1.0)
    newest = community.versions.get(None).version.number
    assert f"Version {newest} is the one given out" in export(community, tmp_path / "a").read_text()
    say(community, newest, ReleaseState.HELD, "", 1)
    html = export(community, tmp_path / "b").read_text()
    assert f"Version {newest - 1} is the one given out" in html
    assert html.count(">held</td>") == 1
    assert [row.state for row in version_rows(community)][:2] == ["held", "released"]
