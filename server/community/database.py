"""The coordinator's memory: one SQLite file in WAL mode, schema versions by `user_version`.

Several processes may have it open (`nomoat up` beside `nomoat volunteers … ban`): whatever reads,
decides and writes does so inside `transaction()`, which takes the write lock first.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Binding, Enrol, Standing
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.receipts import SignedReceipt
from nomoat.aggregation.protocol.roster import SignedEntry
from nomoat.server.community.invites import IssuedInvitation
from nomoat.server.community.membership_rules import Applicant, Holders
from nomoat.storage.atomic import no_room

# Migration i takes a database from user_version i to i + 1; none is ever edited, only added.
MIGRATIONS = (
    """
    CREATE TABLE invites (identifier BLOB PRIMARY KEY, uses INTEGER NOT NULL,
        used INTEGER NOT NULL, expires INTEGER NOT NULL, revoked INTEGER NOT NULL);
    CREATE TABLE volunteers (name TEXT PRIMARY KEY, identity BLOB NOT NULL UNIQUE,
        node_key BLOB NOT NULL UNIQUE, binding BLOB NOT NULL, standing TEXT NOT NULL,
        reason TEXT NOT NULL, at INTEGER NOT NULL);
    CREATE TABLE roster (idx INTEGER PRIMARY KEY, entry BLOB NOT NULL);
    CREATE TABLE versions (number INTEGER PRIMARY KEY, adapter BLOB NOT NULL, record BLOB NOT NULL);
    CREATE TABLE rounds (number INTEGER PRIMARY KEY, committed INTEGER NOT NULL,
        record TEXT NOT NULL, checkpoint BLOB NOT NULL);
    """,
    """
    CREATE TABLE receipts (packet BLOB PRIMARY KEY, identity BLOB NOT NULL, round INTEGER NOT NULL,
        receipt BLOB NOT NULL);
    CREATE INDEX receipts_of ON receipts (identity, round);
    """,
    """
    CREATE TABLE strikes (round INTEGER NOT NULL, kind TEXT NOT NULL, volunteer TEXT NOT NULL,
        about TEXT NOT NULL, at INTEGER NOT NULL, UNIQUE (round, kind, volunteer, about));
    """,
    """
    CREATE TABLE came_by (volunteer TEXT PRIMARY KEY, invitation BLOB NOT NULL);
    """,
    """
    CREATE TABLE evidence (digest BLOB PRIMARY KEY, volunteer TEXT NOT NULL, round INTEGER NOT NULL,
        at INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE appeals (volunteer TEXT PRIMARY KEY, text TEXT NOT NULL, at INTEGER NOT NULL);
    """,
    """
    CREATE TABLE sizes (volunteer TEXT NOT NULL, round INTEGER NOT NULL, at INTEGER NOT NULL,
        size REAL NOT NULL);
    CREATE INDEX sizes_of ON sizes (volunteer, at);
    """,
    """
    CREATE TABLE releases (number INTEGER PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL,
        at INTEGER NOT NULL);
    """,
    """
    CREATE TABLE pruned (adapter BLOB PRIMARY KEY, at INTEGER NOT NULL);
    """,
    """
    CREATE TABLE scans (number INTEGER PRIMARY KEY, against INTEGER NOT NULL,
        tried INTEGER NOT NULL, asked INTEGER NOT NULL, found TEXT NOT NULL, at INTEGER NOT NULL);
    """,
    """
    CREATE TABLE ordered_rollback (one INTEGER PRIMARY KEY CHECK (one = 0),
        version INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL);
    """,
    """
    CREATE TABLE canary_checks (number INTEGER PRIMARY KEY, answers TEXT NOT NULL,
        summary TEXT NOT NULL, at INTEGER NOT NULL);
    """,
)
BUSY_S = 10.0


class Database:
    """The database of one community. Thread-safe: one connection, one lock."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self.closed = ""  # why nothing may be decided now; "": it may
        try:
            self._db = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # what was promised survives power loss
            self._migrate()
        except sqlite3.Error as problem:
            raise NomoatError(f"database {path}: {problem}{no_room(path)}") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, alone among all processes; nests. NomoatError while it is `closed`."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            if self.closed:
                raise NomoatError(self.closed)
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._execute("COMMIT")
            # So that a copy of this file alone, without its -wal, has what was promised.
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def copy_to(self, path: Path) -> None:
        """Copy everything as it is at one instant, also what is in the -wal, into a new file."""
        with self._lock:
            copy = sqlite3.connect(path)
            try:
                self._db.backup(copy)
            except sqlite3.Error as problem:
                raise NomoatError(f"the database cannot be copied to {path}: {problem}") from None
            finally:
                copy.close()

    def invitation(self, identifier: bytes) -> IssuedInvitation | None:
        """An invitation by its identifier."""
        row = self._one("SELECT uses, used, expires, revoked FROM invites WHERE identifier = ?",
                        identifier)  # fmt: skip
        return row and IssuedInvitation(identifier, row[0], row[1], row[2], bool(row[3]))

    def invitations(self) -> list[IssuedInvitation]:
        """All invitations, the last to expire first."""
        rows = self._all("SELECT identifier, uses, used, expires, revoked FROM invites "
                         "ORDER BY expires DESC")  # fmt: skip
        return [IssuedInvitation(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]

    def put_invitation(self, issue: IssuedInvitation) -> None:
        """Write an invitation, new or changed."""
        values = (issue.identifier, issue.uses, issue.used, issue.expires, issue.revoked)
        self._execute("INSERT OR REPLACE INTO invites VALUES (?, ?, ?, ?, ?)", *values)

    def note_invitation_of(self, volunteer: str, identifier: bytes) -> None:
        """Write down by which invitation a volunteer came, the last time."""
        self._execute("INSERT OR REPLACE INTO came_by VALUES (?, ?)", volunteer, identifier)

    def invitations_of(self) -> dict[str, bytes]:
        """Volunteer → identifier of the invitation that it came by, where that is known."""
        return dict(self._all("SELECT volunteer, invitation FROM came_by"))

    def known(self, binding: Binding) -> Holders:
        """Whoever holds a binding's name or one of its keys."""
        return Holders(
            self._applicant("name", binding.name),
            self._applicant("identity", binding.identity),
            self._applicant("node_key", binding.node_key),
        )

    def applicant(self, name: str) -> Applicant | None:
        """An enrolled volunteer by name."""
        return self._applicant("name", name)

    def applicants(self) -> list[Applicant]:
        """Everyone who ever enrolled, by name."""
        rows = self._all("SELECT binding, standing, reason FROM volunteers ORDER BY name")
        return [_applicant(row) for row in rows]

    def put_applicant(self, applicant: Applicant, at: int) -> None:
        """Write a volunteer, new or changed."""
        binding = applicant.binding
        blob = wire.encode(Enrol(b"", binding)).head
        self._execute(
            "INSERT INTO volunteers VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
            "SET node_key = excluded.node_key, binding = excluded.binding, "
            "standing = excluded.standing, reason = excluded.reason, at = excluded.at",
            binding.name, binding.identity, binding.node_key, blob,
            applicant.standing.value, applicant.reason, at,
        )  # fmt: skip

    def roster_length(self) -> int:
        """Number of roster entries."""
        return int(self._one("SELECT count(*) FROM roster")[0])

    def roster_entries(self, start: int, limit: int = -1) -> list[SignedEntry]:
        """Roster entries from index `start`, at most `limit` (-1: all)."""
        rows = self._all("SELECT entry FROM roster WHERE idx >= ? ORDER BY idx LIMIT ?",
                         start, limit)  # fmt: skip
        return [wire.decode(wire.Packet(row[0]), SignedEntry, "roster table") for row in rows]

    def append_roster(self, signed: SignedEntry) -> None:
        """Write the next roster entry; a taken index is an error."""
        blob = wire.encode(signed).head
        self._execute("INSERT INTO roster VALUES (?, ?)", signed.entry.index, blob)

    def versions(self, start: int = 0, limit: int = -1) -> list[SignedVersion]:
        """Version records from number `start`, in order."""
        rows = self._all("SELECT record FROM versions WHERE number >= ? ORDER BY number LIMIT ?",
                         start, limit)  # fmt: skip
        return [wire.decode(wire.Packet(row[0]), SignedVersion, "version table") for row in rows]

    def pruned(self) -> frozenset[bytes]:
        """Digests of adapters whose files were deleted on purpose."""
        return frozenset(row[0] for row in self._all("SELECT adapter FROM pruned"))

    def note_pruned(self, adapters: Collection[bytes], now: int) -> None:
        """Note that these adapters' files are deleted."""
        for adapter in adapters:
            self._execute("INSERT OR IGNORE INTO pruned VALUES (?, ?)", adapter, now)

    def newest_version(self) -> SignedVersion | None:
        """The newest version record."""
        row = self._one("SELECT record FROM versions ORDER BY number DESC LIMIT 1")
        return row and wire.decode(wire.Packet(row[0]), SignedVersion, "version table")

    def append_version(self, record: SignedVersion) -> None:
        """Write the next version record; a taken number is an error."""
        version, blob = record.version, wire.encode(record).head
        self._execute(
            "INSERT INTO versions VALUES (?, ?, ?)", version.number, version.adapter, blob
        )
        self._execute("DELETE FROM pruned WHERE adapter = ?", version.adapter)  # it is here again

    def put_round(self, number: int, committed: bool, record: str, checkpoint: bytes) -> None:
        """Write an ended round: its record (JSON) and where the next one goes on from.

        A checkpoint takes the place of the one before; b"" leaves that.
        """
        values = (number, committed, record, checkpoint)
        self._execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?)", *values)
        if checkpoint:
            older = "UPDATE rounds SET checkpoint = x'' WHERE number < ? AND checkpoint != x''"
            self._execute(older, number)

    def last_round(self) -> tuple[int, str, bytes] | None:
        """(number, record, checkpoint) of the last ended round that has a checkpoint.

        Where none has: of the last one that was committed, with b"".
        """
        row = self._one(
            "SELECT number, record, checkpoint FROM rounds "
            "ORDER BY checkpoint != x'' DESC, committed DESC, number DESC LIMIT 1"
        )
        return row and (row[0], row[1], row[2])

    def rounds_after(self, number: int) -> list[str]:
        """The records of the rounds that ended after `number`, in order."""
        rows = self._all("SELECT record FROM rounds WHERE number > ? ORDER BY number", number)
        return [row[0] for row in rows]

    def last_record(self) -> str | None:
        """The record of the last ended round."""
        row = self._one("SELECT record FROM rounds ORDER BY number DESC LIMIT 1")
        return row and str(row[0])

    def rounds(self) -> list[str]:
        """The records of all ended rounds, in order."""
        return [row[0] for row in self._all("SELECT record FROM rounds ORDER BY number")]

    def all_receipts(self) -> Iterator[SignedReceipt]:
        """Every receipt, in the order of rounds."""
        for row in self._all("SELECT receipt FROM receipts ORDER BY round"):
            yield wire.decode(wire.Packet(row[0]), SignedReceipt, "receipt table")

    def faults(self) -> list[str]:
        """The damage that SQLite finds in its file."""
        try:
            found = [str(row[0]) for row in self._all("PRAGMA integrity_check")]
        except sqlite3.Error as problem:
            return [str(problem)]
        return [] if found == ["ok"] else found

    def round_record(self, number: int) -> str | None:
        """The record of one ended round."""
        row = self._one("SELECT record FROM rounds WHERE number = ?", number)
        return row and str(row[0])

    def whole_rounds(self) -> list[tuple[int, str, bytes]]:
        """(number, record, checkpoint) of all ended rounds, in order."""
        return self._all("SELECT number, record, checkpoint FROM rounds ORDER BY number")

    def replace_round(self, number: int, record: str, checkpoint: bytes) -> None:
        """Write an ended round's record and checkpoint anew."""
        sql = "UPDATE rounds SET record = ?, checkpoint = ? WHERE number = ?"
        self._execute(sql, record, checkpoint, number)

    def put_receipt(self, signed: SignedReceipt) -> None:
        """Write a receipt; one for the same packet is replaced."""
        receipt, blob = signed.receipt, wire.encode(signed).head
        values = (receipt.packet, receipt.volunteer, receipt.round, blob)
        self._execute("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?)", *values)

    def receipts(self, identity: bytes, first_round: int, limit: int) -> list[SignedReceipt]:
        """Receipts of one volunteer from `first_round` on, in the order of rounds."""
        rows = self._all("SELECT receipt FROM receipts WHERE identity = ? AND round >= ? "
                         "ORDER BY round LIMIT ?", identity, first_round, limit)  # fmt: skip
        return [wire.decode(wire.Packet(row[0]), SignedReceipt, "receipt table") for row in rows]

    def strikes(self) -> list[tuple[int, str, str, str, int]]:
        """(round, kind, volunteer, about, unix time) of what is held against members, in order."""
        return self._all("SELECT round, kind, volunteer, about, at FROM strikes ORDER BY rowid")

    def put_strike(self, number: int, kind: str, volunteer: str, about: str, at: int) -> None:
        """Note something against a member; the same is noted once."""
        values = (number, kind, volunteer, about, at)
        self._execute("INSERT OR REPLACE INTO strikes VALUES (?, ?, ?, ?, ?)", *values)

    def forget_strikes(self, before: int, kept: str) -> None:
        """Delete what is from rounds before this one, but for strikes of the kind `kept`."""
        self._execute("DELETE FROM strikes WHERE round < ? AND kind != ?", before, kept)

    def forgive(self, volunteer: str, kind: str) -> None:
        """Delete what of this kind is held against a member."""
        self._execute("DELETE FROM strikes WHERE volunteer = ? AND kind = ?", volunteer, kind)

    def rename_in_strikes(self, name: str, other: str) -> None:
        """Put another name in the place of a member's."""
        self._execute("UPDATE strikes SET volunteer = ? WHERE volunteer = ?", other, name)
        self._execute("UPDATE strikes SET about = ? WHERE about = ?", other, name)

    def delete_receipts(self, identity: bytes) -> int:
        """Delete every receipt of one volunteer; how many there were."""
        return self._execute("DELETE FROM receipts WHERE identity = ?", identity).rowcount

    def run(self, sql: str, *values: object) -> list[Any]:
        """Run one statement on the tables of another module; the rows it gives."""
        with self._lock:
            return self._execute(sql, *values).fetchall()

    def _applicant(self, column: str, value: object) -> Applicant | None:
        row = self._one(f"SELECT binding, standing, reason FROM volunteers WHERE {column} = ?",  # noqa: S608 - columns are our own
                        value)  # fmt: skip
        return row and _applicant(row)

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise NomoatError(
                f"this folder was written by a newer nomoat (schema {version}, this one knows "
                f"{len(MIGRATIONS)}); upgrade nomoat"
            )
        for number in range(version, len(MIGRATIONS)):
            script = (
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT"
            )
            self._db.executescript(script)

    def _execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        with self._lock:
            try:
                return self._db.execute(sql, values)
            except sqlite3.OperationalError as problem:  # disk full, locked for too long, …
                raise NomoatError(f"the community database refused a write: {problem}") from None

    def _one(self, sql: str, *values: object) -> Any:
        with self._lock:
            return self._db.execute(sql, values).fetchone()

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def _applicant(row: tuple[bytes, str, str]) -> Applicant:
    binding = wire.decode(wire.Packet(row[0]), Enrol, "volunteer table").binding
    try:
        return Applicant(binding, Standing(row[1]), row[2])
    except ValueError:  # until it is derived from the roster (Registrar.mend)
        return Applicant(binding, Standing.HELD, "its standing in the database is damaged")
