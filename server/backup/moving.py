"""`nomoat database move`: a community's records from a file of SQLite to PostgreSQL, and back."""

from __future__ import annotations

import datetime
from pathlib import Path

from nomoat.aggregation.errors import UsageError
from nomoat.server.community.folder import Folder
from nomoat.server.engines.moving import relocate
from nomoat.server.engines.place import IN_FOLDER, Place, check
from nomoat.server.engines.whereabouts import Whereabouts
from nomoat.server.succession.kept_keys import key_and_changes
from nomoat.storage.atomic import held


def move_records(root: Path, to: str, move: str, now: datetime.datetime) -> tuple[str, str]:
    """Move a community's records; from where and where to, in words without a password.

    to: PostgreSQL's URL, or "sqlite". move: names this move, another each time. UsageError if they
    are there already, NomoatError if the community is up, or as engines.moving.move says.
    """
    folder = Folder(root)
    folder.load()
    _, keys = key_and_changes(folder)
    place: Place = folder.database if to == IN_FOLDER else check(to)
    if place == folder.place:
        raise UsageError(f"the records of {root} are there already")
    mark = Whereabouts(keys.founding, move, at=int(now.timestamp()))
    with held(folder.up_lock, f"{root} is up; end it first: nomoat down {root}"):
        return relocate(folder.address, folder.database, place, mark)
