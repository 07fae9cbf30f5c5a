"""Old versions lose their files by rule, and nothing else; what is left is verified as ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import adapter
from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.database import Database
from nomoat.server.community.versions import Provenance, VersionStore
from nomoat.server.pruning import Pruned, PruningRule, prune


def store(root: Path, count: int) -> VersionStore:
    database = Database(root / "community.db")
    versions = VersionStore(database, root / "adapters", SigningKey(b"\7" * 32), b"b" * 32)
    for number in range(count):
        made_by = Provenance(number, "fedavg", ("ada",), 3.0 - number / 10, 3.0)
        versions.add(adapter(number), made_by, 100 + number)
    return versions


def left(versions: VersionStore) -> list[int]:
    records = versions.database.versions()
    return [r.version.number for r in records if versions.path(r.version.adapter).exists()]


@given(st.integers(1, 50), st.integers(0, 12), st.integers(0, 200))
def test_the_first_and_the_newest_are_kept_by_any_rule(keep: int, every: int, newest: int) -> None:
    kept = [n for n in range(newest + 1) if PruningRule(keep, every).keeps(n, newest)]
    assert {0, newest} <= set(kept)
    assert set(range(max(0, newest - keep + 1), newest + 1)) <= set(kept)
    assert len(kept) <= keep + 1 + (newest // every if every else 0)


def test_old_versions_lose_their_files_and_keep_their_records(tmp_path: Path) -> None:
    versions = store(tmp_path, 8)
    gone = prune(versions, PruningRule(2, 3), 500)
    assert left(versions) == [0, 3, 6, 7]
    assert gone.files == 4
    assert gone.bytes > 0
    assert versions.verify() == 8
    with pytest.raises(UsageError, match="version 4 was pruned"):
        versions.rollback(4, 600)
    assert prune(versions, PruningRule(2, 3), 700) == Pruned(0, 0)
    assert PruningRule(2, 0, given_out=4).keeps(4, 9)
    assert not PruningRule(2, 0, given_out=4).keeps(5, 9)


def test_a_file_that_is_missing_without_having_been_pruned_is_named(tmp_path: Path) -> None:
    versions = store(tmp_path, 5)
    prune(versions, PruningRule(1), 500)
    versions.path(adapter(4).digest).unlink()
    with pytest.raises(NomoatError, match="restore"):
        versions.verify()


def test_what_a_rollback_went_back_to_is_kept_with_it(tmp_path: Path) -> None:
    versions = store(tmp_path, 5)
    versions.rollback(2, 600)
    prune(versions, PruningRule(1), 700)
    assert left(versions) == [0, 2, 5]
    assert versions.verify() == 6


def test_an_adapter_that_comes_back_after_it_was_pruned_is_checked_again(tmp_path: Path) -> None:
    versions = store(tmp_path, 4)
    prune(versions, PruningRule(1), 500)
    versions.add(adapter(1), Provenance(4, "fedavg", ("ada",), 2.0, 3.0), 600)
    assert versions.load(versions.get(4)).digest == adapter(1).digest
    versions.path(adapter(1).digest).unlink()
    with pytest.raises(NomoatError, match="restore"):
        versions.verify()
