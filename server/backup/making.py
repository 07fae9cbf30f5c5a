"""`nomoat backup`: a consistent copy of a community, made while it is up."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.server.backup import archive
from nomoat.server.backup.archive import BackupManifest
from nomoat.server.backup.sealing import check_passphrase, seal
from nomoat.server.community.database import Database
from nomoat.server.community.folder import Folder
from nomoat.server.community.opened import OpenCommunity
from nomoat.storage.atomic import replacing

LAST = "backed-up.json"


def make(
    community: OpenCommunity,
    to: Path,
    passphrase: str,
    now: int,
    entropy: Callable[[int], bytes] = os.urandom,
) -> BackupManifest:
    """Write a community into one file: what it holds at one instant, its keys under a passphrase.

    NomoatError if one of its files is missing, or the place cannot be written.
    """
    folder = community.folder
    if folder.restoring.exists():
        raise NomoatError(community.registrar.database.closed)
    folder.check_keys()
    check_passphrase(passphrase)
    if to.is_dir():
        raise NomoatError(f"{to} is a folder; name a file")
    with tempfile.TemporaryDirectory(dir=to.absolute().parent, prefix=".backup.") as scratch:
        copy = Path(scratch) / folder.database.name
        # First the database: what it names was written before it was named.
        community.registrar.database.copy_to(copy)
        files = {folder.database.name: copy, **_beside(folder, copy)}
        manifest = _manifest(community, copy, files, now)
        keys = {name: (folder.root / name).read_bytes() for name in _keys(folder)}
        community.registrar.check_unchanged()  # else the copy has a key that is not of its roster
        sealed = seal(keys, passphrase, entropy(28), manifest.encode())
        archive.write(to, manifest, sealed, files)
    with replacing(folder.root / LAST) as file:
        file.write(json.dumps({"at": now, "version": manifest.version}).encode())
    return manifest


def last_made(folder: Folder) -> int | None:
    """The unix time of the last backup of a community; None if there never was one."""
    try:
        return int(json.loads((folder.root / LAST).read_bytes())["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keys(folder: Folder) -> tuple[str, ...]:
    paths = (folder.community_key, folder.authority_key, folder.server_key)
    return tuple(path.relative_to(folder.root).as_posix() for path in paths)


def _beside(folder: Folder, copy: Path) -> dict[str, Path]:
    """The files that belong to a copy of the database, by their names in the folder."""
    store = Database(copy)
    try:
        named = {record.version.adapter for record in store.versions()}
        digests = {digest.hex() for digest in named - store.pruned()}
    finally:
        store.close()
    needed = [
        folder.settings,
        folder.authority_certificate,
        folder.server_certificate,
        *(folder.adapters / f"{digest}.adapter" for digest in sorted(digests)),
    ]
    others = (
        folder.agreed,
        folder.evaluation,
        folder.canaries,
        folder.origin,
        folder.restored,
        folder.keys,
    )
    paths = [*needed, *(path for path in others if path.exists())]
    for path in paths:
        if not path.is_file():
            raise NomoatError(f"{path} is missing: a backup without it would be none")
    return {path.relative_to(folder.root).as_posix(): path for path in paths}


def _manifest(
    community: OpenCommunity, copy: Path, files: dict[str, Path], now: int
) -> BackupManifest:
    store = Database(copy)
    try:
        newest, last = store.newest_version(), store.last_record()
    finally:
        store.close()
    return BackupManifest(
        community.registrar.keys.id.hex(),
        community.settings.community.name,
        0 if newest is None else newest.version.number,
        0 if last is None else int(json.loads(last)["round"]),
        now,
        {name: archive.digest_of(path) for name, path in files.items()},
    )
