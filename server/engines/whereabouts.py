"""A row that moves with records: whose they are, and if they are the ones that count."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.aggregation.errors import NomoatError
from nomoat.server.engines.engine import RecordsEngine

OTHERS = "holds the records of another community; give this one a database or a schema of its own"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The owner of records. move: of the copy that they are until a move has ended, or of the
    move by which they `went`; "" of neither. at: unix time of the last change.
    """

    community: bytes
    move: str = ""
    went: str = ""
    at: int = 0


def read(engine: RecordsEngine) -> Whereabouts | None:
    """Return whose records these are; None where nobody has said so."""
    rows = engine.execute("SELECT community, move, went, at FROM whereabouts")
    return Whereabouts(*rows[0]) if rows else None


def write(engine: RecordsEngine, found: Whereabouts) -> None:
    """Say whose records these are, in the place of what was said."""
    engine.execute("DELETE FROM whereabouts")
    values = (found.community, found.move, found.went, found.at)
    engine.execute("INSERT INTO whereabouts VALUES (0, ?, ?, ?, ?)", values)


def settle(engine: RecordsEngine, community: bytes) -> None:
    """Have records be a community's, and count; NomoatError if they are another's, or went away.

    A folder names a copy only once the records it was made of have gone: then it counts.
    """
    found = read(engine)
    if found is not None and found.community != community:
        raise NomoatError(f"{engine.place} {OTHERS}")
    if found is not None and found.went:
        raise NomoatError(
            f"the records in {engine.place} were moved to {found.went}; go on where they are, or "
            "end that move: nomoat database move DIR URL"
        )
    if found is None or found.move:
        engine.begin()
        try:
            write(engine, Whereabouts(community, at=0 if found is None else found.at))
        except BaseException:
            engine.roll_back()
            raise
        engine.commit()
