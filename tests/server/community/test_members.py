"""Invitations are spent once per volunteer, orders follow the table, and both survive a restart."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import (
    Binding,
    Enrol,
    Enrolled,
    Standing,
    bind,
    check_answer,
    enrolling,
    prove,
)
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.invitation import Claims, issue
from nomoat.aggregation.protocol.roster import Event, Roster, accept_page
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.database import Database
from nomoat.server.community.members import Registrar
from nomoat.server.community.membership_rules import Admission

KEY = SigningKey(b"\7" * 32)
NOW = 1_800_000_000
IDENTITIES = [SigningKey(bytes([number + 1]) * 32) for number in range(60)]
NODE_KEYS = [ec.derive_private_key(2000 + i, ec.SECP384R1()) for i in range(6)]


def opened_registrar(folder: Path, admission: Admission = Admission.OPEN) -> Registrar:
    return Registrar(Database(folder / "community.db"), KEY, admission)


def invited(registrar: Registrar, uses: int = 5, expires: int = NOW + 100, tag: int = 1) -> bytes:
    claims = Claims("localhost:1", bytes(32), KEY.public, bytes([tag]) * 16, uses, expires)
    return registrar.invite(claims).token()


def person(number: int, name: str | None = None, key: int | None = None) -> Binding:
    identity = SigningKey(bytes([number + 1]) * 32)
    node_key = NODE_KEYS[number if key is None else key]
    return bind(name or f"vol{number}", identity, node_key, KEY.public)


def enrol(registrar: Registrar, who: Binding, token: bytes, now: int = NOW) -> Standing:
    request = wire.encode(Enrol(token, who))
    key = next(key for key in IDENTITIES if key.public == who.identity)
    proof = prove(key, KEY.public, enrolling(request.head), now)
    reply = registrar.enrol(request.head, now, proof)
    read = wire.decode(wire.encode(reply), Enrolled, "coordinator")
    return check_answer(read, request, KEY.public)


def test_a_good_invitation_admits_and_the_roster_shows_it(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    assert enrol(registrar, person(0), invited(registrar)) is Standing.APPROVED
    seen = accept_page(Roster.empty(CommunityKeys(KEY.public)), registrar.page(0))
    assert seen.members["vol0"].binding.identity == person(0).identity
    assert seen == registrar.roster()


def test_an_answer_is_for_one_request_only(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar)
    first = wire.encode(Enrol(token, person(0)))
    other = wire.encode(Enrol(token, person(1)))
    reply = registrar.enrol(first.head, NOW)
    with pytest.raises(RemoteProtocolError, match="not signed"):
        check_answer(reply, other, KEY.public)


def test_an_invitation_is_good_for_as_many_volunteers_as_it_says(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar, uses=2)
    for number in (0, 1, 0, 1):  # asking again spends nothing
        assert enrol(registrar, person(number), token) is Standing.APPROVED
    with pytest.raises(Refused, match="used up"):
        enrol(registrar, person(2), token)


def test_two_at_once_cannot_both_have_the_last_use(tmp_path: Path) -> None:
    registrars = [opened_registrar(tmp_path) for _ in range(2)]  # two processes, one database
    token = invited(registrars[0], uses=1)
    start, outcomes = threading.Barrier(2), []

    def run(number: int) -> None:
        start.wait()
        try:
            outcomes.append(enrol(registrars[number], person(number), token))
        except Refused:
            outcomes.append(None)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["None", "approved"]
    assert registrars[0].roster().length == 1


@pytest.mark.parametrize("case", ["expired", "unknown", "revoked", "foreign", "forged", "none"])
def test_a_bad_invitation_is_refused_clearly(tmp_path: Path, case: str) -> None:
    registrar = opened_registrar(tmp_path)
    token, now = invited(registrar), NOW
    claims = Claims("localhost:1", bytes(32), KEY.public, b"u" * 16, 5, NOW + 100)
    stranger = SigningKey(b"\x08" * 32)
    if case == "expired":
        now = NOW + 100
    elif case == "unknown":
        token = issue(claims, KEY).token()
    elif case == "revoked":
        registrar.revoke((b"\1" * 16).hex())
    elif case == "foreign":
        token = issue(
            Claims("h:1", bytes(32), stranger.public, b"u" * 16, 5, now + 9), stranger
        ).token()
    elif case == "forged":
        token = issue(claims, stranger).token()
    else:
        token = b""
    words = {
        "expired": "expired", "unknown": "not known", "revoked": "revoked",
        "foreign": "another community", "forged": "forged", "none": "not enrolled",
    }  # fmt: skip
    with pytest.raises((Refused, RemoteProtocolError), match=words[case]):
        enrol(registrar, person(0), token, now)
    assert registrar.roster().length == 0


def test_names_and_keys_are_taken_once(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar, uses=9)
    enrol(registrar, person(0), token)
    with pytest.raises(Refused, match="taken"):
        enrol(registrar, person(1, "vol0"), token)
    with pytest.raises(Refused, match="already enrolled"):
        enrol(registrar, person(0, "other"), token)
    with pytest.raises(Refused, match="node key"):
        enrol(registrar, person(2, key=0), token)
    left = registrar.database.invitation(b"\1" * 16)
    assert left is not None
    assert left.used == 1


@pytest.mark.parametrize("name", ["../x", "A", "a b", ".a", "a\n", "a" * 41])
def test_a_name_that_is_unsafe_in_a_path_or_log_is_refused(tmp_path: Path, name: str) -> None:
    registrar = opened_registrar(tmp_path)
    with pytest.raises((Refused, RemoteProtocolError, NomoatError)):
        enrol(registrar, person(0, name), invited(registrar))


def test_approval_is_needed_where_the_community_says_so(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path, Admission.APPROVE)
    assert enrol(registrar, person(0), invited(registrar)) is Standing.PENDING
    assert registrar.roster().members == {}
    with pytest.raises(UsageError, match="approve it first"):
        registrar.order("vol0", Event.BAN, "", NOW)
    assert registrar.order("vol0", Event.RELEASE, "", NOW) is Standing.APPROVED
    assert enrol(registrar, person(0), b"") is Standing.APPROVED  # asking where one stands


def test_a_ban_outlasts_a_restart_and_a_new_invitation(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    enrol(registrar, person(0), invited(registrar))
    registrar.order("vol0", Event.BAN, "sent junk", NOW)
    registrar.database.close()
    again = opened_registrar(tmp_path)
    assert enrol(again, person(0), invited(again, tag=2)) is Standing.BANNED
    assert again.roster().members["vol0"].reason == "sent junk"


def test_whoever_left_may_come_back_with_an_invitation(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    enrol(registrar, person(0), invited(registrar))
    assert registrar.leave(person(0).identity, NOW) is Standing.LEFT
    assert enrol(registrar, person(0), b"") is Standing.LEFT
    assert enrol(registrar, person(0), invited(registrar, tag=2)) is Standing.APPROVED


@pytest.mark.parametrize("admission", list(Admission))
def test_whoever_left_comes_back_from_a_new_machine_as_a_newcomer_does(
    tmp_path: Path, admission: Admission
) -> None:
    registrar = opened_registrar(tmp_path, admission)
    enrol(registrar, person(0), invited(registrar))
    if admission is Admission.APPROVE:
        registrar.order("vol0", Event.RELEASE, "", NOW)
    registrar.leave(person(0).identity, NOW)
    seen = accept_page(
        Roster.empty(CommunityKeys(KEY.public)), registrar.page(0)
    )  # by a volunteer, before
    again = person(0, key=4)
    assert enrol(registrar, again, b"") is Standing.LEFT  # it takes an invitation
    spent = invited(registrar, uses=1, tag=2)
    enrol(registrar, person(1), spent)
    with pytest.raises(Refused, match="used up"):
        enrol(registrar, again, spent)
    standing = enrol(registrar, again, invited(registrar, tag=3))
    if admission is Admission.APPROVE:
        assert standing is Standing.PENDING
        assert registrar.roster().members["vol0"].standing is Standing.LEFT
        assert enrol(registrar, person(0, key=5), invited(registrar, tag=3)) is Standing.PENDING
        assert enrol(registrar, again, invited(registrar, tag=3)) is Standing.PENDING
        assert registrar.order("vol0", Event.RELEASE, "", NOW) is Standing.APPROVED
    else:
        assert standing is Standing.APPROVED
    assert enrol(registrar, again, b"") is Standing.APPROVED
    after = accept_page(seen, registrar.page(seen.length))
    assert after == registrar.roster()
    assert after.members["vol0"].binding.node_key == again.node_key
    assert opened_registrar(tmp_path, admission).roster() == after


def test_a_return_keeps_its_name_and_nobody_who_is_banned_returns(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar, uses=9)
    enrol(registrar, person(0), token)
    enrol(registrar, person(1), token)
    registrar.leave(person(0).identity, NOW)
    with pytest.raises(Refused, match="join with --as vol0"):
        enrol(registrar, person(0, "other", key=4), token)
    with pytest.raises(Refused, match="belongs to another volunteer"):
        enrol(registrar, person(0, key=1), token)
    with pytest.raises(UsageError, match="new invitation"):  # its old machine's key is gone
        registrar.order("vol0", Event.RELEASE, "", NOW)
    registrar.order("vol0", Event.BAN, "sent junk", NOW)
    assert enrol(registrar, person(0, key=4), token) is Standing.BANNED
    assert enrol(registrar, person(0, "other", key=4), token) is Standing.BANNED
    assert registrar.roster().members["vol0"].standing is Standing.BANNED


def test_a_lost_machine_is_removed_by_the_coordinator_and_its_owner_comes_back(
    tmp_path: Path,
) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar)
    enrol(registrar, person(0), token)
    with pytest.raises(Refused, match=r"already enrolled, as vol0; .* remove it"):
        enrol(registrar, person(0, key=4), token)
    assert registrar.order("vol0", Event.LEAVE, "stolen", NOW) is Standing.LEFT
    assert enrol(registrar, person(0, key=4), token) is Standing.APPROVED


def test_an_order_of_another_process_is_seen_at_once(tmp_path: Path) -> None:
    running, other = opened_registrar(tmp_path), opened_registrar(tmp_path)
    enrol(running, person(0), invited(running))
    assert running.roster().members["vol0"].standing is Standing.APPROVED
    other.order("vol0", Event.HOLD, "look into it", NOW)
    assert running.roster().members["vol0"].standing is Standing.HELD


def test_the_roster_can_be_read_by_many_threads_while_it_grows(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar, uses=6)
    problems: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        length = 0
        try:
            while not done.is_set():
                seen = registrar.roster().length
                assert seen >= length  # it never goes back
                length = seen
        except BaseException as problem:  # noqa: BLE001 - handed to the test's own thread
            problems.append(problem)

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for number in range(6):
        enrol(registrar, person(number), token)
    for _ in range(20):
        registrar.order("vol0", Event.HOLD, "", NOW)
        registrar.order("vol0", Event.RELEASE, "", NOW)
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert registrar.roster().length == 46


def test_a_failed_order_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registrar = opened_registrar(tmp_path)
    enrol(registrar, person(0), invited(registrar))

    def full(*_: object) -> None:
        raise NomoatError("disk full")

    monkeypatch.setattr(registrar.database, "put_applicant", full)
    with pytest.raises(NomoatError, match="disk full"):
        registrar.order("vol0", Event.BAN, "", NOW)
    monkeypatch.undo()
    assert registrar.roster().members["vol0"].standing is Standing.APPROVED
    assert registrar.order("vol0", Event.BAN, "", NOW) is Standing.BANNED


def test_a_database_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    import sqlite3

    Database(tmp_path / "community.db").close()
    db = sqlite3.connect(tmp_path / "community.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(NomoatError, match="upgrade nomoat"):
        Database(tmp_path / "community.db")


def test_leaving_does_not_end_a_hold(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar)
    enrol(registrar, person(0), token)
    registrar.order("vol0", Event.HOLD, "dealt bad shares", NOW)
    assert registrar.leave(person(0).identity, NOW) is Standing.LEFT
    assert enrol(registrar, person(0), token) is Standing.HELD
    member = registrar.roster().members["vol0"]
    assert (member.standing, member.reason) == (Standing.HELD, "dealt bad shares")
    assert registrar.order("vol0", Event.RELEASE, "", NOW) is Standing.APPROVED


def test_a_damaged_standing_is_nobodys_leave_to_speak_and_is_the_rosters_again(
    tmp_path: Path,
) -> None:
    registrar = opened_registrar(tmp_path)
    for number in (1, 2):
        enrol(registrar, person(number), invited(registrar, tag=number))
    first, other = (person(number).name for number in (1, 2))
    registrar.database._execute("UPDATE volunteers SET standing = 'approv' WHERE name = ?", first)
    found = registrar.database.applicant(first)
    assert found is not None
    assert found.standing is Standing.HELD
    assert registrar.mend(NOW) == [first]
    assert registrar.mend(NOW) == []
    assert [each.standing for each in registrar.database.applicants()] == [Standing.APPROVED] * 2
    assert other in registrar.roster().members


def test_a_leavers_public_binding_brings_back_nobody(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    token = invited(registrar)
    enrol(registrar, person(0), token)
    registrar.leave(person(0).identity, NOW)
    seen = registrar.roster().members["vol0"].binding  # as every member sees it
    request = wire.encode(Enrol(token, seen)).head
    with pytest.raises(Refused, match="upgrade it"):
        registrar.enrol(request, NOW)
    thief = prove(IDENTITIES[7], KEY.public, enrolling(request), NOW)
    with pytest.raises(RemoteProtocolError, match="somebody else's name"):
        registrar.enrol(request, NOW, thief)
    of_another = prove(IDENTITIES[0], KEY.public, enrolling(b"another request"), NOW)
    with pytest.raises(RemoteProtocolError, match="does not prove"):
        registrar.enrol(request, NOW, of_another)
    stale = prove(IDENTITIES[0], KEY.public, enrolling(request), NOW - 400)
    with pytest.raises(RemoteProtocolError, match="400 s behind the coordinator's; set"):
        registrar.enrol(request, NOW, stale)
    assert registrar.roster().members["vol0"].standing is Standing.LEFT
    assert enrol(registrar, seen, token) is Standing.APPROVED


def test_strangers_learn_no_name_without_a_good_invitation(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    enrol(registrar, person(0), invited(registrar))
    spent = invited(registrar, uses=1, tag=2)
    enrol(registrar, person(1), spent)
    answers = set()
    for name in ("vol0", "vol1", "nobody"):
        for token in (b"", spent):
            with pytest.raises(Refused) as refused:
                enrol(registrar, person(3, name), token)
            answers.add(str(refused.value))
    assert len(answers) == 2  # one a token, whoever is here
    with pytest.raises(Refused, match="is taken"):
        enrol(registrar, person(3, "vol0"), invited(registrar, tag=3))


def test_the_invitation_that_somebody_came_by_can_be_found_and_revoked(tmp_path: Path) -> None:
    registrar = opened_registrar(tmp_path)
    good, bad = invited(registrar), invited(registrar, tag=2)
    enrol(registrar, person(0), good)
    for number in (1, 2):
        enrol(registrar, person(number), bad)
    revoked, others = registrar.revoke_of("vol1")
    assert (revoked.identifier, others) == (bytes([2]) * 16, ["vol2"])
    with pytest.raises(Refused, match="was revoked"):
        enrol(registrar, person(3), bad)
    assert enrol(registrar, person(3), good) is Standing.APPROVED
    with pytest.raises(UsageError, match="not written down"):
        registrar.revoke_of("stranger")
