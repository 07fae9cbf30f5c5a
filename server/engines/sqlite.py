"""SQLite: one file in WAL mode, which several processes of one machine may have open."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.server.engines.engine import BUSY_S, DatabaseFault, Row
from nomoat.storage.atomic import no_room


class SqliteEngine:
    """Records in a file. It is this machine's alone: its lock file is claim enough (host.py)."""

    remote = False
    away = False

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._path = path
        try:
            self._db = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # what was promised survives power loss
        except sqlite3.Error as problem:
            raise NomoatError(f"database {path}: {problem}{no_room(path)}") from None

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement; the rows it gives."""
        return self._run(sql, values).fetchall()

    def put_all(self, sql: str, rows: Iterator[Row]) -> None:
        """Run one statement for each row."""
        try:
            self._db.executemany(sql, rows)
        except sqlite3.Error as problem:
            raise self._fault(problem) from None

    def rows(self, table: str) -> tuple[list[str], Iterator[Row]]:
        """The columns of a table, and its rows in the order they came."""
        found = self._run(f"SELECT * FROM {table} ORDER BY rowid", ())  # noqa: S608 - ours
        return [column[0] for column in found.description], found

    @property
    def in_transaction(self) -> bool:
        """True from `begin` on."""
        return self._db.in_transaction

    def begin(self) -> None:
        """Take the write lock."""
        self._run("BEGIN IMMEDIATE", ())

    def commit(self) -> None:
        """Commit; a copy of the file alone, without its -wal, then has what was promised."""
        self._run("COMMIT", ())
        with contextlib.suppress(sqlite3.Error):  # it is committed: a full disk, say, is of later
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def roll_back(self) -> None:
        """Undo; SQLite has done so itself after some errors."""
        if self._db.in_transaction:
            self._run("ROLLBACK", ())

    def snapshot(self) -> None:
        """Read from one instant on."""
        self._run("BEGIN", ())
        self._run("SELECT count(*) FROM sqlite_master", ())

    def step(self) -> int:
        """SQLite's own number."""
        return int(self.execute("PRAGMA user_version")[0][0])

    def take_step(self, number: int, script: str) -> None:
        """Run a script's statements; `executescript` would commit first."""
        for statement in script.split(";"):
            self._run(statement, ())
        self._run(f"PRAGMA user_version = {number + 1}", ())

    @contextlib.contextmanager
    def claimed(self, taken: str) -> Iterator[None]:
        """Nothing to do: no other machine has the file."""
        yield

    def faults(self) -> list[str]:
        """Everything that SQLite finds in its file."""
        try:
            found = [str(row[0]) for row in self.execute("PRAGMA integrity_check")]
        except DatabaseFault as problem:
            return [str(problem)]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _run(self, sql: str, values: Sequence[object]) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as problem:  # disk full, locked for too long, damaged, …
            raise self._fault(problem) from None

    def _fault(self, problem: sqlite3.Error) -> DatabaseFault:
        return DatabaseFault(f"the community database refused: {problem}{no_room(self._path)}")
