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
def versions(tmp_path: Path) -> VersionStore:
    store = Database(tmp_path / "community.db")
    return VersionStore(store, tmp_path / "adapters", SigningKey(b"\7" * 32), b"b" * 32)


def test_versions_come_back_as_they_were_added(versions: VersionStore) -> None:
    for number in range(3):
        versions.add(adapter(number), measured(number), 100 + number)
    assert versions.verify() == 3
    newest = versions.get(None)
    assert (newest.version.number, newest.version.at) == (2, 102)
    assert np.array_equal(versions.load(versions.get(1)).vector, adapter(1).vector)


def test_a_rollback_adds_a_version_and_rewrites_none(versions: VersionStore) -> None:
    for number in range(3):
        versions.add(adapter(number), measured(number), 100 + number)
    before = versions.database.versions()
    record = versions.rollback(0, 200)
    assert versions.database.versions()[:3] == before
    assert record.version.adapter == adapter(0).digest
    assert (record.version.number, record.version.note) == (3, "rollback to version 0")
    assert versions.verify() == 4


def test_a_damaged_or_lost_file_is_named(versions: VersionStore) -> None:
    versions.add(adapter(0), measured(0), 100)
    path = versions.path(adapter(0).digest)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(NomoatError, match=path.name):
        versions.verify()
    path.unlink()
    with pytest.raises(NomoatError, match="backup"):
        versions.verify()


def test_a_forged_record_is_found(versions: VersionStore) -> None:
    versions.add(adapter(0), measured(0), 100)
    forger = VersionStore(versions.database, versions.folder, SigningKey(b"\x08" * 32), b"b" * 32)
    forger.add(adapter(1), measured(1), 101)
    with pytest.raises(NomoatError, match="not signed"):
        versions.verify()


def test_a_version_that_does_not_exist_is_a_usage_error(versions: VersionStore) -> None:
    with pytest.raises(UsageError, match="no version yet"):
        versions.get(None)
    versions.add(adapter(0), measured(0), 100)
    with pytest.raises(UsageError, match="no version 7"):
        versions.get(7)


def test_a_crash_between_file_and_record_leaves_the_history_whole(
    versions: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.add(adapter(0), measured(0), 100)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(versions.database, "append_version", killed)
    with pytest.raises(KeyboardInterrupt):
        versions.add(adapter(1), measured(1), 101)
    monkeypatch.undo()
    assert versions.verify() == 1
    assert versions.add(adapter(1), measured(1), 102).version.number == 1
