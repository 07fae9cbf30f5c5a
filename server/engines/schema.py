"""Steps of the schema, for both engines: SQL scripts, none ever edited, only added.

They are written as SQLite reads them; PostgreSQL takes them with its own names of types
(postgresql.py).
"""

from __future__ import annotations

import re

from nomoat.aggregation.errors import NomoatError
from nomoat.server.engines.engine import RecordsEngine

# Step i takes a database from i to i + 1.
STEPS = (
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
    """
    CREATE TABLE whereabouts (one INTEGER PRIMARY KEY CHECK (one = 0), community BLOB NOT NULL,
        move TEXT NOT NULL, went TEXT NOT NULL, at INTEGER NOT NULL);
    """,
)
TABLES = tuple(re.findall(r"CREATE TABLE (\w+)", "".join(STEPS)))


def migrate(engine: RecordsEngine) -> None:
    """Take the steps that a database has yet to take; NomoatError if it has taken unknown ones."""
    if engine.step() == len(STEPS):
        return
    engine.begin()
    try:
        taken = engine.step()
        if taken > len(STEPS):
            raise NomoatError(
                f"{engine.place} was written by a newer nomoat (schema {taken}, this one knows "
                f"{len(STEPS)}); upgrade nomoat"
            )
        for number in range(taken, len(STEPS)):
            engine.take_step(number, STEPS[number])
    except BaseException:
        engine.roll_back()
        raise
    engine.commit()
