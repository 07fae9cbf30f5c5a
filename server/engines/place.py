"""The place of a community's records: its own file, or what `database.url` in its folder names.

postgresql://town@db.example/town        # libpq's: PGPASSFILE, PGSERVICE, sslmode, … as ever
"""

from __future__ import annotations

from pathlib import Path

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.server.engines.engine import RecordsEngine
from nomoat.server.engines.sqlite import SqliteEngine
from nomoat.storage.private import read_private, write_private

Place = Path | str  # of SQLite's file, or PostgreSQL's URL

SCHEMES = ("postgresql://", "postgres://")
IN_FOLDER = "sqlite"  # how a person names the file in the folder


def connect(place: Place) -> RecordsEngine:
    """Open the records at a place; NomoatError in one line if they cannot be."""
    if isinstance(place, Path):
        return SqliteEngine(place)
    from nomoat.server.engines.postgresql import PostgresEngine

    return PostgresEngine(place)


def check(url: str) -> str:
    """Return a URL of PostgreSQL; UsageError if it is none, with nothing of it in the message."""
    if not url.startswith(SCHEMES):
        raise UsageError(f"give {SCHEMES[0]}…, as libpq has it")
    return url


def named(file: Path, own: Path) -> Place:
    """Return the place that a folder's database.url names, `own` where there is no such file."""
    if not file.exists():
        return own
    try:
        return check(read_private(file, "the database's address").decode().strip())
    except (UsageError, UnicodeDecodeError):
        raise NomoatError(f"{file}: give {SCHEMES[0]}…, as libpq has it") from None


def name(file: Path, place: Place) -> None:
    """Have a folder's database.url name a place, from one instant on."""
    if isinstance(place, Path):
        file.unlink(missing_ok=True)
    else:
        write_private(file, place.encode() + b"\n")
