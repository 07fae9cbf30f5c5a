"""Whatever the engine: one writes at a time, all or nothing, and only a community's own counts."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError, Refused, Unreachable, UsageError
from nomoat.server.community.database import Database
from nomoat.server.community.invites import IssuedInvitation
from nomoat.server.engines import place as places
from nomoat.server.engines import postgresql
from nomoat.server.engines.engine import DatabaseAway
from nomoat.server.engines.place import Place
from nomoat.server.engines.postgresql import shown
from nomoat.server.engines.schema import STEPS
from nomoat.server.engines.turns import hurried
from postgres import Server

Records = Callable[[Path], Place]
OURS, THEIRS = b"o" * 32, b"t" * 32


def invitation(used: int = 0) -> IssuedInvitation:
    return IssuedInvitation(b"i" * 16, 1000, used, 2**33, False)


def used(database: Database) -> int:
    found = database.invitation(b"i" * 16)
    assert found is not None
    return found.used


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path, records: Records) -> None:
    with contextlib.closing(Database(records(tmp_path))) as database:

        def failing(sql: str, *values: object) -> None:
            with database.transaction():
                with database.transaction():
                    database.put_invitation(invitation())
                database.run("INSERT INTO roster VALUES (?, ?)", 0, b"one")
                database.run(sql, *values)

        with pytest.raises(NomoatError, match="refused"):
            failing("INSERT INTO roster VALUES (?, ?)", 0, b"another")
        with pytest.raises(NomoatError, match="refused"):
            failing("DELETE FROM nothing")
        assert (database.invitations(), database.roster_length()) == ([], 0)
        database.put_invitation(invitation(3))
        assert used(database) == 3


def test_what_is_read_to_decide_is_changed_by_nobody_meanwhile(
    tmp_path: Path, records: Records
) -> None:
    place = records(tmp_path)

    def redeem() -> None:
        with contextlib.closing(Database(place)) as one:
            for _ in range(15):
                with one.transaction():
                    before = used(one)
                    time.sleep(0)
                    one.put_invitation(invitation(before + 1))

    with contextlib.closing(Database(place)) as database:
        database.put_invitation(invitation())
        threads = [threading.Thread(target=redeem) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert used(database) == 45


def test_a_statement_by_itself_waits_for_who_reads_and_decides(
    tmp_path: Path, records: Records
) -> None:
    place = records(tmp_path)
    with contextlib.closing(Database(place)) as one, contextlib.closing(Database(place)) as other:
        one.put_invitation(invitation())
        late = threading.Thread(target=other.put_invitation, args=(invitation(7),))
        with one.transaction():
            late.start()
            late.join(0.3)
            one.put_invitation(invitation(1))
            assert used(one) == 1
        late.join()
        assert used(one) == 7


def test_everybody_is_told_what_was_noted_in_its_order(tmp_path: Path, records: Records) -> None:
    with contextlib.closing(Database(records(tmp_path))) as database:
        for number, name in enumerate(("zoe", "ada", "Bob")):
            database.put_strike(number, "silence", name, "", 10)
        database.put_strike(0, "silence", "zoe", "", 20)
        assert [(strike[2], strike[4]) for strike in database.strikes()] == [
            ("zoe", 20), ("ada", 10), ("Bob", 10),
        ]  # fmt: skip


def test_records_of_a_newer_release_or_of_another_community_are_refused(
    tmp_path: Path, records: Records
) -> None:
    place = records(tmp_path)
    Database(place, OURS).close()
    Database(place, OURS).close()
    with pytest.raises(NomoatError, match="of another community"):
        Database(place, THEIRS)
    if isinstance(place, Path):
        with sqlite3.connect(place) as file:
            file.execute("PRAGMA user_version = 99")
    else:
        engine = places.connect(place)
        engine.execute("UPDATE schema_step SET taken = 99")
        engine.close()
    with pytest.raises(NomoatError, match=rf"schema 99, this one knows {len(STEPS)}.*upgrade"):
        Database(place, OURS)


def test_two_machines_cannot_both_run_rounds(postgres: Server) -> None:
    url = postgres.schema()
    with contextlib.closing(Database(url)) as one, contextlib.closing(Database(url)) as other:
        with one.claimed("is up elsewhere"):
            with pytest.raises(NomoatError, match=r"is up elsewhere.*schema s"):
                other.claimed("is up elsewhere").__enter__()
            other.put_invitation(invitation())  # commands go on
        with other.claimed("is up elsewhere"):
            assert used(other) == 0


def test_a_server_that_was_killed_and_started_loses_nothing(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.schema()
    broken = []

    def twice() -> None:
        with database.transaction():
            database.put_invitation(invitation(used(database) + 1))
            if not broken:
                broken.append(True)
                postgres.kill()
                postgres.start()
            database.put_invitation(invitation(used(database) + 1))

    with contextlib.closing(Database(url)) as database, database.claimed("is up elsewhere"):
        database.put_invitation(invitation())
        postgres.kill()
        back = threading.Timer(0.5, postgres.start)
        back.start()
        assert used(database) == 0  # waited for
        back.join()
        database.settled(twice)
        assert used(database) == 2
        with contextlib.closing(Database(url)) as other, pytest.raises(NomoatError, match="is up"):
            other.claimed("is up elsewhere").__enter__()
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 2
    assert all("the connection broke" in line for line in said)


def test_whoever_is_hurried_waits_for_no_server_that_is_away(postgres: Server) -> None:
    database = Database(postgres.schema())
    with contextlib.closing(database), database.claimed("is up elsewhere"):
        found: list[int] = []
        patient = threading.Thread(target=lambda: found.append(used(database)))
        database.put_invitation(invitation(3))
        postgres.kill()
        with hurried(), pytest.raises(DatabaseAway, match="cannot be reached"):
            used(database)  # it tries once
        patient.start()
        while not patients(database):
            time.sleep(0.01)
        with hurried(), pytest.raises(DatabaseAway, match="does not answer now"):
            database.put_invitation(invitation(4))
        assert patient.is_alive()
        postgres.start()
        patient.join()
        assert found == [3]
        with hurried():
            assert used(database) == 3


def patients(database: Database) -> bool:
    """True once a thread has the connection, and waits for its server."""
    if database._lock.acquire(blocking=False):
        database._lock.release()
        return False
    return True


def test_who_lost_the_right_to_run_rounds_writes_nothing_more(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.schema()
    monkeypatch.setattr(postgresql, "GHOST_S", 0.2)
    with contextlib.ExitStack() as held:
        one, other = (held.enter_context(contextlib.closing(Database(url))) for _ in range(2))
        held.enter_context(one.claimed("is up elsewhere"))
        locks = "FROM pg_locks WHERE locktype = 'advisory' AND pid != pg_backend_pid()"
        while other.rows(f"SELECT pg_terminate_backend(pid) {locks}"):
            time.sleep(0.01)
        held.enter_context(other.claimed("is up elsewhere"))
        for _ in range(2):
            with pytest.raises(NomoatError, match="is up elsewhere"):
                one.put_invitation(invitation())
        assert other.invitations() == []


def test_whoever_cannot_have_a_database_is_told_so_in_one_line(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(places.connect(postgres.url())) as engine:
        engine.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    guarded = postgres.url().replace("coordinator@", "guarded:wrong@")
    cases = {
        guarded: (Refused, "password authentication failed"),
        postgres.url().replace("/postgres?", "/nowhere?"): (Refused, "does not exist"),
        postgres.url("nowhere"): (UsageError, "no such schema"),
        "postgresql://h:s3cret@localhost:1/x": (Unreachable, "cannot be reached"),
        "postgresql://h:s3cret@[localhost": (UsageError, "no address"),
    }
    for url, (kind, said) in cases.items():
        with pytest.raises(kind, match=said) as told:
            Database(url)
        assert "\n" not in str(told.value)
        assert not {"wrong", "s3cret"} & set(str(told.value).replace(":", " ").split())
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"psycopg\[binary\]"):
        Database(postgres.url())


def test_a_password_is_shown_to_nobody() -> None:
    pytest.importorskip("psycopg")
    said = shown("postgresql://me:s3cret@db.example:5433/town?options=-csearch_path%3Dours")
    assert said == "PostgreSQL, database town, user me, at db.example:5433, schema ours"
