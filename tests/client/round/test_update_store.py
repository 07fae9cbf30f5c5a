"""What a volunteer must not lose survives a restart, privately, whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.methods.base import Factors, LocalStart
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.secagg.diary import Mark
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.round.work import HeldUpdate


def adapter(seed: int, rank: int = 2) -> Adapter:
    spec = AdapterSpec((LayerSpec("q", 4, 3, rank),), rank, 2.0 * rank, target_modules=("q",))
    values = np.random.default_rng(seed).standard_normal(spec.size)
    return Adapter(spec, values.astype(np.float32))


def held(frozen: Adapter | None = None) -> HeldUpdate:
    local = LocalStart(adapter(1), adapter(2, 1), frozen, (1,), Factors(True, False))
    return HeldUpdate(7, "fedavg", local, adapter(3, 1))


@pytest.mark.parametrize("frozen", [None, adapter(9, 1)])
def test_an_update_comes_back_as_it_was(tmp_path: Path, frozen: Adapter | None) -> None:
    store = DiskUpdateStore(tmp_path / "held")
    assert store.load() is None
    store.save(held(frozen))
    again = DiskUpdateStore(tmp_path / "held").load()
    assert again is not None
    assert (again.round, again.method) == (7, "fedavg")
    assert (again.local.modules, again.local.factors) == ((1,), Factors(True, False))
    assert again.trained.digest == adapter(3, 1).digest
    assert again.local.broadcast.digest == adapter(1).digest
    assert (again.local.frozen is None) == (frozen is None)
    assert stat.S_IMODE((tmp_path / "held" / "update.safetensors").stat().st_mode) == 0o600


def test_a_newer_update_takes_the_place_of_the_older(tmp_path: Path) -> None:
    store = DiskUpdateStore(tmp_path)
    store.save(held())
    newer = HeldUpdate(8, "fedavg", held().local, held().trained)
    store.save(newer)
    again = store.load()
    assert again is not None
    assert again.round == 8
    assert [p.name for p in tmp_path.iterdir()] == ["update.safetensors"]


def test_a_damaged_update_is_deleted_and_its_round_trained_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = DiskUpdateStore(tmp_path)
    store.save(held())
    path = tmp_path / "update.safetensors"
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[:-700]):
        store.save(held())
        path.write_bytes(data)
        assert store.load() is None
        assert not path.exists()
        assert "its round is trained again" in caplog.text


def test_marks_are_appended_and_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    store = DiskUpdateStore(tmp_path / "held")
    first = (Mark("joined", b"s" * 32, 3, 1), Mark("signed", b"s" * 32, 3, 1))
    store.mark(first)
    store.mark((Mark("revealed", b"s" * 32, 3, 1),))
    assert [m.kind for m in store.marks()] == ["joined", "signed", "revealed"]
    path = tmp_path / "held" / "marks.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    assert store.marks() == first
    store.mark(())
    store.mark((Mark("revealed", b"t" * 32, 4, 1),))
    assert store.marks() == (*first, Mark("revealed", b"t" * 32, 4, 1))
