"""Records that move from one engine to another: all or nothing, and never two that count.

    copied     all of the source, to which nobody writes meanwhile, marked as a copy
    gone       the source is marked as gone, in its own transaction: the move has happened
    named      the folder names the target (database.url)
    settled    the target is no copy any more

Killed before `gone`, the source counts, and the next try writes over the copy. Killed after it,
nothing runs off the source any more, and the same command does what is left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.aggregation.errors import NomoatError
from nomoat.server.engines import whereabouts
from nomoat.server.engines.place import Place, check, connect, name, named
from nomoat.server.engines.schema import TABLES, migrate
from nomoat.server.engines.whereabouts import OTHERS, Whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nomoat.server.engines.engine import RecordsEngine

MARK = "whereabouts"
TAKEN = "a coordinator is up on these records on another machine"


@contextmanager
def writing(engine: RecordsEngine) -> Iterator[None]:
    """A write transaction while the block runs; undone after an error."""
    engine.begin()
    try:
        yield
    except BaseException:
        engine.roll_back()
        raise
    engine.commit()


def copy(source: RecordsEngine, target: RecordsEngine) -> None:
    """Write all that `source` has into `target`, in the place of what is there.

    Both are in transactions of the caller's.
    """
    for table in TABLES:
        target.execute(f"DELETE FROM {table}")  # noqa: S608 - the tables are ours
        columns, rows = source.rows(table)
        wanted = f"{table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        target.put_all(f"INSERT INTO {wanted}", rows)


def move(
    source: RecordsEngine, target: RecordsEngine, mark: Whereabouts, switch: Callable[[], None]
) -> None:
    """Move a community's records. mark: whose, by which move (another each time), and when.

    switch: has the folder name the target. NomoatError if the source is not that community's or
    went elsewhere, if the target is in use, or holds records that count.
    """
    migrate(source)
    migrate(target)
    with source.claimed(TAKEN), target.claimed(TAKEN):
        there = whereabouts.read(target)
        if there is not None and there.community != mark.community:
            raise NomoatError(f"{target.place} {OTHERS}")
        here = whereabouts.read(source)
        if here is None or not here.went:
            _send(source, target, mark)
        elif there is None or there.went or there.move not in ("", here.move):
            raise NomoatError(f"the records in {source.place} were moved to {here.went}")
        switch()
        whereabouts.settle(target, mark.community)


def relocate(file: Path, own: Path, place: Place, mark: Whereabouts) -> tuple[str, str]:
    """Move the records of a folder; from where and where to, as a person may read it.

    file, own: its database.url and its own file of records.
    """
    with (
        contextlib.closing(connect(named(file, own))) as source,
        contextlib.closing(connect(place)) as target,
    ):
        move(source, target, mark, lambda: name(file, place))
        return source.place, target.place


def check_free(url: str | None) -> None:
    """Raise NomoatError unless a new community's records can be in this database of PostgreSQL."""
    if url is None:
        return
    with contextlib.closing(connect(check(url))) as engine:
        migrate(engine)
        if whereabouts.read(engine) is not None:
            raise NomoatError(f"{engine.place} {OTHERS}")


def _send(source: RecordsEngine, target: RecordsEngine, mark: Whereabouts) -> None:
    """Copy, and mark the source as gone."""
    there = whereabouts.read(target)
    if target.execute("SELECT number FROM versions LIMIT 1") and (there is None or not there.move):
        raise NomoatError(f"{target.place} holds records that count; move nothing over them")
    whereabouts.settle(source, mark.community)
    with writing(source):
        with writing(target):
            copy(source, target)
            whereabouts.write(target, Whereabouts(mark.community, mark.move, "", mark.at))
        gone = Whereabouts(mark.community, mark.move, target.place, mark.at)
        whereabouts.write(source, gone)
