"""Versions are chained, signed and complete; a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders import adapter
from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.database import Database
from nomoat.server.community.versions import Provenance, VersionStore


def measured(round_: int) -> Provenance:
    return Provenance(round_, "fedavg", ("ada",), 3.0 - round_ / 10, 3.0)


@pytest.fixture
def registry(tmp_path: Path) -> VersionStore:
    store = Database(tmp_path / "community.db")
    return VersionStore(store, tmp_path / "adapters", SigningKey(b"\7" * 32), b"b" * 32)


def test_versions_come_back_as_they_were_added(registry: VersionStore) -> None:
    for number in range(3):
        registry.add(adapter(number), measured(number), 100 + number)
    assert registry.verify() == 3
    newest = registry.get(None)
    assert (newest.version.number, newest.version.at) == (2, 102)
    assert np.array_equal(registry.load(registry.get(1)).vector, adapter(1).vector)


def test_a_rollback_adds_a_version_and_rewrites_none(registry: VersionStore) -> None:
    for number in range(3):
        registry.add(adapter(number), measured(number), 100 + number)
    before = registry.store.versions()
    record = registry.rollback(0, 200)
    assert registry.store.versions()[:3] == before
    assert record.version.adapter == adapter(0).digest
    assert (record.version.number, record.version.note) == (3, "rollback to version 0")
    assert registry.verify() == 4


def test_a_damaged_or_lost_file_is_named(registry: VersionStore) -> None:
    registry.add(adapter(0), measured(0), 100)
    path = registry.path(adapter(0).digest)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(NomoatError, match=path.name):
        registry.verify()
    path.unlink()
    with pytest.raises(NomoatError, match="backup"):
        registry.verify()


def test_a_forged_record_is_found(registry: VersionStore) -> None:
    registry.add(adapter(0), measured(0), 100)
    forger = VersionStore(registry.store, registry.folder, SigningKey(b"\x08" * 32), b"b" * 32)
    forger.add(adapter(1), measured(1), 101)
    with pytest.raises(NomoatError, match="not signed"):
        registry.verify()


def test_a_version_that_does_not_exist_is_a_usage_error(registry: VersionStore) -> None:
    with pytest.raises(UsageError, match="no version yet"):
        registry.get(None)
    registry.add(adapter(0), measured(0), 100)
    with pytest.raises(UsageError, match="no version 7"):
        registry.get(7)


def test_a_crash_between_file_and_record_leaves_the_history_whole(
    registry: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(adapter(0), measured(0), 100)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry.store, "append_version", killed)
    with pytest.raises(KeyboardInterrupt):
        registry.add(adapter(1), measured(1), 101)
    monkeypatch.undo()
    assert registry.verify() == 1
    assert registry.add(adapter(1), measured(1), 102).version.number == 1
