"""Files of old versions, deleted by rule; their signed records stay, and the chain with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.server.community.versions import VersionStore


@dataclass(frozen=True, slots=True)
class PruningRule:
    """The versions to keep: the newest so many, and every so-manieth (0: no others).

    Version 0 is always kept: rounds begin with it. given_out: the newest release, which people get.
    """

    newest: int
    every: int = 0
    given_out: int = 0

    def __post_init__(self) -> None:
        if self.newest < 1 or self.every < 0:
            raise UsageError("at least the newest version is kept: --keep 1 or more")

    def keeps(self, number: int, newest: int) -> bool:
        """Return True if version `number` is kept while `newest` is the newest."""
        if number in (0, newest, self.given_out) or number > newest - self.newest:
            return True
        return self.every > 0 and number % self.every == 0


@dataclass(frozen=True, slots=True)
class Pruned:
    """Counts of what was deleted."""

    files: int
    bytes: int


def spare(records: Sequence[SignedVersion], rule: PruningRule) -> frozenset[bytes]:
    """Digests of adapters that no version to keep has; a rollback has that of an earlier one."""
    newest = records[-1].version.number if records else 0
    kept = {r.version.adapter for r in records if rule.keeps(r.version.number, newest)}
    return frozenset(r.version.adapter for r in records) - kept


def prune(versions: VersionStore, rule: PruningRule, now: int) -> Pruned:
    """Delete the files of all versions but those to keep.

    Noted first, in one transaction, so that a crash leaves files to delete the next time and none
    missing unexplained. Safe while rounds run: they add versions and need only the newest.
    """
    store = versions.database
    with store.transaction():
        unwanted = spare(store.versions(), rule)
        store.note_pruned(unwanted, now)
    files, size = 0, 0
    for digest in sorted(unwanted):
        path = versions.path(digest)
        try:
            found = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            continue
        files, size = files + 1, size + found
    return Pruned(files, size)
