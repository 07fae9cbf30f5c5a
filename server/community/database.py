"""The coordinator's memory: tables in SQLite or PostgreSQL (server/engines).

Several processes may have it open (`nomoat up` beside `nomoat volunteers … ban`): whatever reads,
decides and writes does so inside `transaction()`, which takes the turn to write first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Binding, Enrol, Standing
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.receipts import SignedReceipt
from nomoat.aggregation.protocol.roster import SignedEntry
from nomoat.server.community.invites import IssuedInvitation
from nomoat.server.community.membership_rules import Applicant, Holders
from nomoat.server.engines import whereabouts
from nomoat.server.engines.engine import ConnectionLost
from nomoat.server.engines.moving import copy, writing
from nomoat.server.engines.place import Place, connect
from nomoat.server.engines.schema import migrate
from nomoat.server.engines.sqlite import SqliteEngine
from nomoat.server.engines.turns import turn

T = TypeVar("T")
EVERYTHING = 2**62  # rows
TRIES = 3
STANDING = "ORDER BY length(checkpoint) > 0 DESC, committed DESC, number DESC LIMIT 1"


class Database:
    """The database of one community. Thread-safe: one connection, one lock.

    community: whose it must be, and count; None: not looked at.
    """

    def __init__(self, place: Place, community: bytes | None = None) -> None:
        self._lock = threading.RLock()
        self.closed = ""  # why nothing may be decided now; "": it may
        self._place = place
        self._engine = connect(place)
        try:
            migrate(self._engine)
            if community is not None:
                whereabouts.settle(self._engine, community)
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """Its place, as a person may read it."""
        return self._engine.place

    @property
    def remote(self) -> bool:
        """True if each statement is a trip to a server."""
        return self._engine.remote

    @property
    def in_transaction(self) -> bool:
        """True inside a transaction of this thread's."""
        with self._turn():
            return self._engine.in_transaction

    def close(self) -> None:
        """Close the connection."""
        self._engine.close()

    def claimed(self, taken: str) -> AbstractContextManager[None]:
        """Hold the right to run rounds; NomoatError, with `taken`, if another machine has it."""
        return self._engine.claimed(taken)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, alone among all processes; nests. NomoatError while it is `closed`."""
        with self._turn():
            if self._engine.in_transaction:
                yield
                return
            if self.closed:
                raise NomoatError(self.closed)
            with writing(self._engine):
                yield

    def settled(self, work: Callable[[], T]) -> T:
        """Do work that has its transactions again if the connection breaks in one of them.

        Done twice, it must come to the same end: nobody knows if the last one was committed.
        """
        for left in reversed(range(TRIES)):
            try:
                return work()
            except ConnectionLost:
                with self._turn():  # of somebody else's transaction nothing is seen here
                    if not left or self._engine.in_transaction:
                        raise
        raise AssertionError

    def copy_to(self, path: Path) -> None:
        """Copy everything as it is at one instant into a new file of SQLite's."""
        with (
            contextlib.closing(connect(self._place)) as source,
            contextlib.closing(SqliteEngine(path)) as target,
        ):
            migrate(target)
            source.snapshot()
            with writing(target):
                copy(source, target)

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
        used = {"uses": issue.uses, "used": issue.used}
        ends = {"expires": issue.expires, "revoked": int(issue.revoked)}
        self.put("invites", "identifier", identifier=issue.identifier, **used, **ends)

    def note_invitation_of(self, volunteer: str, identifier: bytes) -> None:
        """Write down by which invitation a volunteer came, the last time."""
        self.put("came_by", "volunteer", volunteer=volunteer, invitation=identifier)

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
        """Number of roster entries: one more than the last index, which no table is read for."""
        return int(self._one("SELECT coalesce(max(idx), -1) + 1 FROM roster")[0])

    def roster_entries(self, start: int, limit: int = EVERYTHING) -> list[SignedEntry]:
        """Roster entries from index `start`, at most `limit`."""
        rows = self._all("SELECT entry FROM roster WHERE idx >= ? ORDER BY idx LIMIT ?",
                         start, limit)  # fmt: skip
        return [wire.decode(wire.Packet(row[0]), SignedEntry, "roster table") for row in rows]

    def append_roster(self, signed: SignedEntry) -> None:
        """Write the next roster entry; a taken index is an error."""
        blob = wire.encode(signed).head
        self._execute("INSERT INTO roster VALUES (?, ?)", signed.entry.index, blob)

    def versions(self, start: int = 0, limit: int = EVERYTHING) -> list[SignedVersion]:
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
            self._execute(
                "INSERT INTO pruned VALUES (?, ?) ON CONFLICT (adapter) DO NOTHING", adapter, now
            )

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
        ended = {"committed": int(committed), "record": record, "checkpoint": checkpoint}
        self.put("rounds", "number", number=number, **ended)
        if checkpoint:
            older = "UPDATE rounds SET checkpoint = ? WHERE number < ? AND length(checkpoint) > 0"
            self._execute(older, b"", number)

    def last_round(self) -> tuple[int, str, bytes] | None:
        """(number, record, checkpoint) of the last ended round that has a checkpoint.

        Where none has: of the last one that was committed, with b"".
        """
        row = self._one(f"SELECT number, record, checkpoint FROM rounds {STANDING}")  # noqa: S608
        return row and (row[0], row[1], row[2])

    def standing_record(self) -> str | None:
        """The record of the round that `last_round` gives; its checkpoint is not read."""
        row = self._one(f"SELECT record FROM rounds {STANDING}")  # noqa: S608
        return row and str(row[0])

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
        """The damage that the engine finds in what it keeps."""
        with self._turn():
            return self._engine.faults()

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
        of = {"identity": receipt.volunteer, "round": receipt.round, "receipt": blob}
        self.put("receipts", "packet", packet=receipt.packet, **of)

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
        of = {"round": number, "kind": kind, "volunteer": volunteer, "about": about}
        self.put("strikes", ", ".join(of), **of, at=at)

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
        with self.transaction():
            count = self._one("SELECT count(*) FROM receipts WHERE identity = ?", identity)[0]
            self._execute("DELETE FROM receipts WHERE identity = ?", identity)
        return int(count)

    def put(self, table: str, key: str, **values: object) -> None:
        """Write a row, in the place of one with the same key, if there is one.

        key: the columns that make it, with commas. values: of all columns.
        """
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        anew = ", ".join(f"{name} = excluded.{name}" for name in values)
        sql = f"INSERT INTO {table} ({columns}) VALUES ({marks}) "  # noqa: S608 - names are ours
        self.run(f"{sql}ON CONFLICT ({key}) DO UPDATE SET {anew}", *values.values())

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Ask the tables of another module; the rows."""
        return self._all(sql, *values)

    def run(self, sql: str, *values: object) -> None:
        """Run one statement on the tables of another module."""
        self._execute(sql, *values)

    def _applicant(self, column: str, value: object) -> Applicant | None:
        row = self._one(f"SELECT binding, standing, reason FROM volunteers WHERE {column} = ?",  # noqa: S608 - columns are our own
                        value)  # fmt: skip
        return row and _applicant(row)

    def _turn(self) -> AbstractContextManager[object]:
        return turn(self._lock, self._engine)

    def _execute(self, sql: str, *values: object) -> None:
        """Run one statement in its turn: by itself, it waits for whoever reads and decides."""
        with self._turn():
            if self._engine.in_transaction:
                self._engine.execute(sql, values)
                return
            with writing(self._engine):
                self._engine.execute(sql, values)

    def _one(self, sql: str, *values: object) -> Any:
        found = self._all(sql, *values)
        return found[0] if found else None

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._turn():
            return self._engine.execute(sql, values)


def _applicant(row: tuple[bytes, str, str]) -> Applicant:
    binding = wire.decode(wire.Packet(row[0]), Enrol, "volunteer table").binding
    try:
        return Applicant(binding, Standing(row[1]), row[2])
    except ValueError:  # until it is derived from the roster (Registrar.mend)
        return Applicant(binding, Standing.HELD, "its standing in the database is damaged")
