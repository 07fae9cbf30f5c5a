"""Versions of the community adapter: signed records in SQLite, files named by their digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys, KeyChange
from nomoat.aggregation.protocol.lineage import SignedVersion, Version, VersionNoise
from nomoat.aggregation.protocol.round_end import LineagePage, sign_end
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.database import Database
from nomoat.server.rounds.records import RoundRecord
from nomoat.storage.atomic import replacing

SUFFIX = ".adapter"
OURS = "our records"
BEYOND = 1 << 40  # any version's number
ROLLED_BACK = "rollback to version "
SENT_BACK = "by rule: "  # begins the note of a version that nobody ordered
UNTRAINED = "the base model: nothing trained yet"  # the note of a version 0


@dataclass(frozen=True)
class Provenance:
    """The origin of a version: round, who contributed, held-out loss after and before.

    evaluation: the loss on the community's evaluation split. noise: in its sum.
    """

    round: int
    method: str
    contributors: tuple[str, ...]
    loss: float | None
    parent_loss: float | None
    note: str = ""
    evaluation: float | None = None
    noise: VersionNoise | None = None


def is_whole(path: Path, digest: bytes) -> bool:
    """Return True if a file holds the adapter of this digest."""
    try:
        lineage.from_file(path.read_bytes(), digest, OURS)
    except (OSError, RemoteProtocolError):
        return False
    return True


@dataclass(frozen=True)
class VersionStore:
    """The versions of one community. base_hash: content hash of its base model, 32 bytes.

    changes: those of its key so far. check_unchanged: raises if there was another one meanwhile.
    """

    database: Database
    folder: Path
    key: SigningKey
    base_hash: bytes
    changes: tuple[KeyChange, ...] = ()
    check_unchanged: Callable[[], None] = lambda: None

    @property
    def keys(self) -> CommunityKeys:
        """Every key the community has had."""
        return CommunityKeys.of(self.key.public, self.changes)

    def path(self, digest: bytes) -> Path:
        """The file of an adapter of this digest."""
        return self.folder / (digest.hex() + SUFFIX)

    def keep(self, adapter: Adapter) -> None:
        """Write an adapter's file, unless it is there and whole; names no version yet."""
        path = self.path(adapter.digest)
        if not is_whole(path, adapter.digest):
            with replacing(path) as file:
                file.write(lineage.to_file(adapter))

    def sweep(self) -> None:
        """Delete files that no version names: of a round that was cut off, or not taken."""
        named = {record.version.adapter.hex() for record in self.database.versions()}
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.name.removesuffix(SUFFIX) not in named:
                path.unlink(missing_ok=True)

    def add(self, adapter: Adapter, measured: Provenance, now: int) -> SignedVersion:
        """Write the file, then the record that names it: a crash leaves at most a spare file."""
        self.keep(adapter)
        return self.record(adapter.digest, measured, now)

    def record(self, adapter: bytes, measured: Provenance, now: int) -> SignedVersion:
        """Write the record of the next version, of an adapter whose file is kept already."""
        with self.database.transaction():
            self.check_unchanged()
            parent = self.database.newest_version()
            version = Version(
                number=0 if parent is None else parent.version.number + 1,
                parent=self.keys.id if parent is None else parent.digest,
                adapter=adapter,
                base_hash=self.base_hash,
                round=measured.round,
                method=measured.method,
                contributors=measured.contributors,
                loss=measured.loss,
                parent_loss=measured.parent_loss,
                evaluation=measured.evaluation,
                note=measured.note,
                at=now,
                noise=measured.noise,
            )
            record = lineage.sign(version, self.key)
            self.database.append_version(record)
        return record

    def get(self, number: int | None) -> SignedVersion:
        """A version by number, the newest for None; UsageError if there is none."""
        found = self.database.newest_version() if number is None else None
        if number is not None:
            found = next(iter(self.database.versions(number, 1)), None)
        if found is None or (number is not None and found.version.number != number):
            which = "no version yet" if number is None else f"no version {number}"
            raise UsageError(f"{which}; see: nomoat adapter list")
        return found

    def lineage(self, start: int) -> LineagePage:
        """Records from number `start`, and the signed end of the last round (protocol §6.4).

        Rounds of before there was such a statement are covered: it is made when it is asked for.
        """
        with self.database.transaction():  # no half of a round that is being written
            records = self.database.versions(start, lineage.PAGE)
            newest, last = self.get(None), self.database.last_record()
        ended = newest.version.round
        if last is not None:
            record = RoundRecord.from_json(json.loads(last))
            ended = max(ended, record.round - record.reusable)  # begun again under its number
        return LineagePage(tuple(records), sign_end(ended, newest, self.key))

    def standing(self) -> bytes:
        """Return the digest of the signed end of the last round, 32 bytes."""
        return self.lineage(BEYOND).ended.digest

    def load(self, record: SignedVersion) -> Adapter:
        """The adapter of a record; NomoatError if its file is gone or altered."""
        path = self.path(record.version.adapter)
        if not path.exists() and record.version.adapter in self.database.pruned():
            raise UsageError(f"version {record.version.number} was pruned: its file is deleted")
        try:
            return lineage.from_file(path.read_bytes(), record.version.adapter, OURS)
        except OSError as problem:
            raise NomoatError(
                f"{path}: {problem.strerror}; bring a backup back with nomoat restore"
            ) from None
        except RemoteProtocolError as problem:
            raise NomoatError(
                f"{path}: {problem.reason}; bring a backup back with nomoat restore"
            ) from None

    def verify(self) -> int:
        """Check chain, signatures and files of all versions; how many there are.

        Those that were pruned have no file.
        """
        records, pruned = self.database.versions(), self.database.pruned()
        try:
            lineage.check_chain(None, records, self.keys)
        except RemoteProtocolError as problem:
            raise NomoatError(f"version table: {problem.reason}") from None
        for record in records:
            if record.version.adapter not in pruned or self.path(record.version.adapter).exists():
                self.load(record)
        return len(records)

    def rollback(self, number: int, now: int, note: str = "") -> SignedVersion:
        """A new version whose adapter is that of `number`; history stays as it is."""
        old = self.get(number)
        newest = self.get(None)
        version = old.version
        note = note or f"{ROLLED_BACK}{number}"
        measured = Provenance(
            newest.version.round, version.method, version.contributors, version.loss,
            newest.version.loss, note, version.evaluation, version.noise,
        )  # fmt: skip
        return self.add(self.load(old), measured, now)
