"""PostgreSQL through psycopg (the extra postgresql): records on a server, for one coordinator.

One writes at a time, as with SQLite: a transaction begins with an advisory lock, and reads what
was committed before each of its statements (READ COMMITTED, so what comes after the lock is seen).
Another lock, of the session, is the right to run rounds: whatever a coordinator that is up writes
goes over the connection that has it, so two machines cannot both. A connection that broke is made
anew, and the right taken again, before anything else is done.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import NomoatError, Refused, Unreachable, UsageError
from nomoat.server.engines.engine import (
    BUSY_S,
    ConnectionLost,
    DatabaseAway,
    DatabaseFault,
    Row,
)
from nomoat.server.engines.schema import TABLES
from nomoat.server.engines.turns import is_hurried

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

PATIENCE_S = 60.0  # for which a coordinator that is up waits for a server that went away
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
# For which a claim is asked for that the connection of a process just killed may still have.
KILLED_S = 1.0
GHOST_S = 10.0  # the same, of our own connection
# Of whoever dies without a word, also by the server's side; a URL may say otherwise.
DEFAULTS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # ms: with something on its way, keepalives are not sent
    "application_name": "nomoat",
}
SESSION = f"""
    SET default_transaction_isolation = 'read committed'; SET lock_timeout = '{BUSY_S:.0f}s';
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') = 'off'
"""
KEY = "hashtext(current_schema())"  # communities in schemas of one database are apart
WRITING, RUNNING = 0x6E6F6D6F, 0x6E6F6D70  # the locks' classes
TYPES = {
    "INTEGER": "BIGINT",
    "BLOB": "BYTEA",
    "REAL": "DOUBLE PRECISION",
    "TEXT": 'TEXT COLLATE "C"',
}


class PostgresEngine:
    """Records in a database of a server, in the first schema of its search path."""

    remote = True

    def __init__(self, url: str) -> None:
        self.place = shown(url)
        self._url = url
        self._claim: str | None = None
        self.away = False
        self._open = False  # a transaction is
        self._db = self._connect()
        self._backend = self._own_backend()

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement; the rows it gives."""
        found = self._run(sql, values)
        return found.fetchall() if found.description else []

    def put_all(self, sql: str, rows: Iterator[Row]) -> None:
        """Run one statement for each row, without waiting for each."""
        import psycopg

        try:
            self._db.cursor().executemany(sql.replace("?", "%s"), rows)
        except psycopg.Error as problem:
            raise self._fault(problem) from None

    def rows(self, table: str) -> tuple[list[str], Iterator[Row]]:
        """The columns of a table but for `rowid`, and its rows in the order they came."""
        described = self._run(f"SELECT * FROM {table} LIMIT 0", ()).description or ()  # noqa: S608 - ours
        columns = [column.name for column in described]
        kept = [name for name in columns if name != "rowid"]
        order = " ORDER BY rowid" if kept != columns else ""
        return kept, self._streamed(f"SELECT {', '.join(kept)} FROM {table}{order}")  # noqa: S608

    @property
    def in_transaction(self) -> bool:
        """True from `begin` on."""
        return self._open

    def begin(self) -> None:
        """Begin, and wait for the turn to write."""
        try:
            self._run("BEGIN", ())
            self._open = True
            self._run(f"SELECT pg_advisory_xact_lock({WRITING}, {KEY})", ())
        except ConnectionLost:  # nothing was done yet
            self._open = False
            self._reconnect("the server is gone")
            self.begin()
        except BaseException:
            self.roll_back()
            raise

    def commit(self) -> None:
        """Commit. ConnectionLost if nobody knows what became of it."""
        ended = self._run("COMMIT", ()).statusmessage
        self._open = False
        if ended != "COMMIT":
            raise DatabaseFault("the community database undid a transaction that had failed")

    def roll_back(self) -> None:
        """Undo; what was lost with its connection is undone already."""
        if self._open:
            with contextlib.suppress(DatabaseFault):
                self._run("ROLLBACK", ())
        self._open = False

    def snapshot(self) -> None:
        """Read from one instant on."""
        self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())
        self._open = True

    def step(self) -> int:
        """The number in a table of its own; 0 where there is none."""
        if self.execute("SELECT to_regclass('schema_step')::text") == [(None,)]:
            return 0
        return int(self.execute("SELECT taken FROM schema_step")[0][0])

    def take_step(self, number: int, script: str) -> None:
        """Run a script's statements, in PostgreSQL's types."""
        if number == 0:
            self._run("CREATE TABLE schema_step (taken BIGINT NOT NULL)", ())
            self._run("INSERT INTO schema_step VALUES (0)", ())
        for statement in filter(str.strip, translated(script).split(";")):
            self._run(statement, ())
        self._run("UPDATE schema_step SET taken = ?", (number + 1,))

    @contextlib.contextmanager
    def claimed(self, taken: str) -> Iterator[None]:
        """Hold the session's lock, over every connection that takes the place of this one."""
        self._claim = taken
        try:
            self._take_claim(KILLED_S)
            yield
        finally:
            self._claim = None
            with contextlib.suppress(Exception):  # whoever has no connection has no claim
                self._db.execute(f"SELECT pg_advisory_unlock({RUNNING}, {KEY})")

    def faults(self) -> list[str]:
        """All is read, as by a dump; what cannot be. The server has its own checks (amcheck)."""
        found = []
        for table in TABLES:
            try:
                for _row in self.rows(table)[1]:
                    pass
            except DatabaseFault as problem:
                found.append(f"{table}: {problem}")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _run(self, sql: str, values: Sequence[object]) -> psycopg.Cursor[Row]:
        """Run a statement, once more over a new connection if it was by itself."""
        import psycopg

        try:
            return self._db.execute(sql.replace("?", "%s"), values, binary=True)
        except psycopg.Error as problem:
            fault = self._fault(problem)
            if self._open or not isinstance(fault, ConnectionLost):
                raise fault from None
        self._reconnect(str(fault))
        return self._run(sql, values)

    def _streamed(self, sql: str) -> Iterator[Row]:
        import psycopg

        try:
            yield from self._db.cursor(binary=True).stream(sql, size=64)
        except psycopg.Error as problem:
            raise self._fault(problem) from None

    def _fault(self, problem: psycopg.Error) -> DatabaseFault:
        text = str(problem).strip().splitlines()[0]
        if self._db.closed or (problem.sqlstate or "").startswith(("08", "57P")):
            return ConnectionLost(f"{self.place}: the connection broke: {text}")
        return DatabaseFault(f"the community database refused: {text}")

    def _connect(self) -> psycopg.Connection[Row]:
        """Connect; NomoatError in one line, of the kind that fits, if that cannot be done."""
        parameters = _parameters(self._url)
        import psycopg

        try:
            made = psycopg.connect(autocommit=True, **parameters)
            made.execute(SESSION)
            schema = made.execute("SELECT current_schema()").fetchone()
        except psycopg.Error as problem:
            text = str(problem).strip().splitlines()[-1].strip()
            if "FATAL:" not in text:
                raise Unreachable(f"{self.place} cannot be reached: {text}") from None
            raise Refused(
                f"{self.place} turned us away: {text.split('FATAL:')[1].strip()}"
            ) from None
        encoding = made.info.parameter_status("server_encoding")
        if encoding != "UTF8" or schema == (None,):
            made.close()
            why = f"it keeps {encoding}, not UTF8" if encoding != "UTF8" else "no such schema"
            raise UsageError(f"{self.place}: {why}; make one with: createdb -E UTF8 -T template0")
        return made

    def _own_backend(self) -> Row:
        """The process of the server that is ours."""
        sql = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        return self.execute(sql)[0]

    def _reconnect(self, why: str) -> None:
        """Make the connection anew, with patience if rounds are run; NomoatError at its end.

        DatabaseAway after one try for whoever is hurried.
        """
        if not self.away:
            log.warning("%s; trying again", why)
        self.away = True
        began, pause = time.monotonic(), FIRST_WAIT_S
        while True:
            try:
                self._db.close()
                self._db = self._connect()
                break
            except (Unreachable, Refused) as problem:  # a server that starts refuses, too
                if is_hurried():
                    raise DatabaseAway(str(problem)) from None
                waited = time.monotonic() - began
                if self._claim is None or waited > PATIENCE_S:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_WAIT_S)
        ghost, self._backend = self._backend, self._own_backend()
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        self.execute(end + "WHERE pid = ? AND backend_start = ?", ghost)
        if self._claim is not None:
            try:
                self._take_claim(GHOST_S)
            except NomoatError:
                self._db.close()  # another has it: nothing may go over this connection
                raise
        self.away = False
        log.info("%s: connected again after %.1f s", self.place, time.monotonic() - began)

    def _take_claim(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while self.execute(f"SELECT pg_try_advisory_lock({RUNNING}, {KEY})") != [(True,)]:
            if time.monotonic() >= until:
                raise NomoatError(f"{self._claim} ({self.place})")
            time.sleep(FIRST_WAIT_S)


def translated(script: str) -> str:
    """A step of the schema in PostgreSQL's types; tables without a key get SQLite's `rowid`."""

    def numbered(table: re.Match[str]) -> str:
        text = table[0]
        own = "" if "PRIMARY KEY" in text else ", rowid BIGINT GENERATED ALWAYS AS IDENTITY"
        return f"{text.removesuffix(');')}{own});"

    script = re.sub(r"CREATE TABLE [^;]*\);", numbered, script)
    return re.sub(r"\b(" + "|".join(TYPES) + r")\b", lambda word: TYPES[word[0]], script)


def shown(url: str) -> str:
    """A database as a person may read it, without what only its owner may know."""
    given = _parameters(url)
    parts = [f"database {given['dbname']}" if "dbname" in given else "the database"]
    parts += [f"{key} {given[key]}" for key in ("service", "user") if key in given]
    host = given.get("host", "")
    parts += [f"at {host}:{given['port']}" if "port" in given else f"at {host}"] if host else []
    path = re.search(r"search_path=(\S+)", str(given.get("options", "")))
    parts += [f"schema {path[1]}"] if path else []
    return "PostgreSQL, " + ", ".join(parts)


def _parameters(url: str) -> dict[str, Any]:
    """The parameters of a URL, with ours where it says nothing."""
    psycopg = _psycopg()
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {**DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.Error as problem:
        raise UsageError(f"no address of a database: {str(problem).strip()}") from None


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError:
        raise UsageError(
            "records in PostgreSQL need psycopg: pip install 'psycopg[binary]'"
        ) from None
    return psycopg
