"""The engine of a community's records, as everything above it sees one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from nomoat.aggregation.errors import NomoatError

BUSY_S = 10.0  # for which whoever wants to write waits for somebody else's transaction

Row = tuple[Any, ...]


class DatabaseFault(NomoatError):
    """The database did not do what was asked; the message says what it said."""


class ConnectionLost(DatabaseFault):
    """The connection broke inside a transaction: nothing of it was written, or all of it."""


class DatabaseAway(DatabaseFault):
    """The server of the records does not answer now, and whoever asked does not wait for it."""


class RecordsEngine(Protocol):
    """One connection. Not thread-safe: whoever has it takes turns.

    Outside a transaction each statement is one by itself. A write transaction is alone among all
    writers of these records, on every machine.
    """

    place: str  # as a person may read it: without a password
    remote: bool  # a statement is a trip to a server
    away: bool  # which does not answer, and is tried again

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement; the rows it gives. DatabaseFault if it cannot be done."""

    def put_all(self, sql: str, rows: Iterator[Row]) -> None:
        """Run one statement for each row."""

    def rows(self, table: str) -> tuple[list[str], Iterator[Row]]:
        """The columns of a table that both engines have, and its rows in the order they came."""

    @property
    def in_transaction(self) -> bool:
        """True from `begin` on."""

    def begin(self) -> None:
        """Begin a write transaction, waiting BUSY_S for others."""

    def commit(self) -> None:
        """End it: from here on it survives a loss of power."""

    def roll_back(self) -> None:
        """End it as if it had never begun."""

    def snapshot(self) -> None:
        """Begin to read everything as it is at one instant; ended by `roll_back`."""

    def step(self) -> int:
        """The steps of the schema that were taken."""

    def take_step(self, number: int, script: str) -> None:
        """Take one more, inside a transaction."""

    def claimed(self, taken: str) -> AbstractContextManager[None]:
        """Hold the right to run rounds on these records while the block runs.

        NomoatError, with `taken` if nothing better is known, if another machine has it.
        """

    def faults(self) -> list[str]:
        """The damage that the engine finds in what it keeps."""

    def close(self) -> None:
        """Close the connection."""
