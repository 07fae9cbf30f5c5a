"""Records move whole, or not at all; wherever a move is cut off, one place counts, and one only."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.server.community.database import Database
from nomoat.server.engines import moving, whereabouts
from nomoat.server.engines.moving import check_free, relocate
from nomoat.server.engines.place import Place, connect, named
from nomoat.server.engines.schema import TABLES
from nomoat.server.engines.whereabouts import Whereabouts
from postgres import Server

OURS, THEIRS = b"o" * 32, b"t" * 32
MADE: dict[str, Callable[[int], object]] = {
    "INTEGER": lambda n: n,
    "TEXT": lambda n: f"ünï '{n}' %s ?",
    "BLOB": lambda n: bytes([n, 0, 255]) * n,
    "REAL": lambda n: n / 3,
}


class Folder:
    """A folder's own file of records, its database.url, and a name for each move."""

    def __init__(self, root: Path) -> None:
        self.file, self.own = root / "database.url", root / "community.db"
        self.moves = map(str, itertools.count())

    @property
    def place(self) -> Place:
        return named(self.file, self.own)

    def move(self, place: Place, community: bytes = OURS) -> tuple[str, str]:
        return relocate(self.file, self.own, place, Whereabouts(community, next(self.moves), at=9))

    def contents(self) -> dict[str, list[tuple[object, ...]]]:
        with contextlib.closing(connect(self.place)) as engine:
            return {table: list(engine.rows(table)[1]) for table in TABLES if table != moving.MARK}

    def counting(self, places: list[Place]) -> list[Place]:
        """Those from which a coordinator could run, whichever its folder named."""
        found = []
        for place in places:
            with contextlib.suppress(NomoatError), contextlib.closing(connect(place)) as engine:
                said = whereabouts.read(engine)
                found += [place] if said is not None and not said.move else []
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Records with something in every table, which a community has as its own."""
    made = Folder(tmp_path)
    Database(made.own, OURS).close()
    with contextlib.closing(connect(made.own)) as engine:
        for table in TABLES:
            columns = engine.execute(f"PRAGMA table_info({table})")
            for n in () if table == moving.MARK else (3, 1, 2):
                row = [0 if column[1] == "one" else MADE[column[2]](n) for column in columns]
                if table != "ordered_rollback" or n == 3:
                    marks = ", ".join("?" * len(row))
                    engine.execute(f"INSERT INTO {table} VALUES ({marks})", row)
    return made


def test_everything_comes_back_as_it_went(folder: Folder, postgres: Server) -> None:
    before = folder.contents()
    assert all(before.values())
    second = postgres.schema()
    for place in (postgres.schema(), folder.own, second, folder.own):
        folder.move(place)
        assert folder.place == place
        after = folder.contents()
        assert {name: sorted(rows) for name, rows in after.items()} == {
            name: sorted(rows) for name, rows in before.items()
        }
        assert after["strikes"] == before["strikes"]  # in their order
        Database(folder.place, OURS).close()
    with pytest.raises(NomoatError, match=r"were moved to .*community\.db"):
        Database(second, OURS)
    folder.move(second)  # over those that went
    assert folder.contents()["strikes"] == before["strikes"]
    with pytest.raises(NomoatError, match=r"were moved to PostgreSQL, .*schema s"):
        Database(folder.own, OURS)


POINTS = [
    (point, after)
    for point in ("copy", "whereabouts.write", "name", "whereabouts.settle")
    for after in (False, True)
]


@pytest.mark.parametrize("there", [True, False], ids=["to PostgreSQL", "and back"])
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_move_that_was_cut_off_is_ended_by_the_same_command(
    folder: Folder,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
    point: tuple[str, bool],
    there: bool,
) -> None:
    url = postgres.schema()
    before = folder.contents()
    if not there:
        folder.move(url)
    target: Place = url if there else folder.own
    source = folder.place

    class Killed(BaseException):
        pass

    name, after = point
    holder, _, called = name.rpartition(".")
    where = getattr(moving, holder) if holder else moving
    done = getattr(where, called)

    def killed(*arguments: object) -> None:
        if called == "settle" and len(calls := [*seen, arguments]) < 2:
            seen.extend(calls)  # the first is of the source
            done(*arguments)
            return
        if after:
            done(*arguments)
        raise Killed

    seen: list[object] = []
    monkeypatch.setattr(where, called, killed)
    with pytest.raises(Killed):
        folder.move(target)
    monkeypatch.undo()
    assert len(folder.counting([source, target])) <= 1
    if folder.place == source and folder.counting([source]):
        assert folder.contents().keys() == before.keys()
        Database(source, OURS).close()
    if folder.place != target:
        folder.move(target)
    Database(target, OURS).close()
    assert folder.counting([source, target]) == [target]
    assert folder.contents()["strikes"] == before["strikes"]


def test_records_are_moved_over_no_others(folder: Folder, postgres: Server, tmp_path: Path) -> None:
    url = postgres.schema()
    check_free(url)
    Database(url, THEIRS).close()
    with pytest.raises(NomoatError, match="another community"):
        check_free(url)
    with pytest.raises(NomoatError, match="another community"):
        folder.move(url)
    free = postgres.schema()
    with pytest.raises(NomoatError, match="another community"):
        folder.move(free, THEIRS)
    (tmp_path / "copied").mkdir()
    copied = Folder(tmp_path / "copied")  # of the folder, before it moved
    copied.own.write_bytes(folder.own.read_bytes())
    folder.move(free)
    with pytest.raises(NomoatError, match="records that count"):
        copied.move(free)
    Database(folder.place, OURS).close()


def test_records_do_not_move_while_a_coordinator_is_up_on_them(
    folder: Folder, postgres: Server
) -> None:
    folder.move(url := postgres.schema())
    with (
        contextlib.closing(Database(url, OURS)) as other,
        other.claimed("is up"),
        pytest.raises(NomoatError, match="up on these records"),
    ):
        folder.move(folder.own)
    assert folder.place == url
    folder.move(folder.own)


def test_an_address_that_others_can_read_is_not_used(folder: Folder) -> None:
    folder.file.write_text("postgresql://me:secret@localhost/town\n")
    folder.file.chmod(0o644)
    with pytest.raises(NomoatError, match="readable by others"):
        _ = folder.place
    folder.file.chmod(0o600)
    folder.file.write_text("mysql://localhost\n")
    with pytest.raises(NomoatError, match="give postgresql://"):
        _ = folder.place
