"""An ended round is written whole or not at all, and a rollback is where the next one starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import SPEC, adapter
from nomoat.aggregation import methods
from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.methods.base import MethodState
from nomoat.aggregation.methods.modules import append
from nomoat.aggregation.methods.server_optimizer import OptimizerState
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.round_end import extend
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.database import Database
from nomoat.server.community.journal import CommunityJournal, pack, unpack
from nomoat.server.community.versions import Provenance, VersionStore
from nomoat.server.engines.place import Place
from nomoat.server.rounds.acceptance import HeldOutLosses
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord


def ended(number: int, committed: bool = True) -> tuple[RoundRecord, FederationCheckpoint]:
    state = methods.get("fedavg").begin(adapter(number if committed else number - 1))
    record = RoundRecord(number, committed, "why", contributors=("ada",), loss=3.0 - number / 10)
    record = replace(record, evaluation=4.0 - number)
    return record, FederationCheckpoint(
        number, state, {"ada": 3.0 - number / 10}, evaluation=record.evaluation
    )


@pytest.fixture
def journal(tmp_path: Path, records: Callable[[Path], Place]) -> CommunityJournal:
    store = Database(records(tmp_path))
    versions = VersionStore(store, tmp_path / "adapters", SigningKey(b"\7" * 32), b"b" * 32)
    versions.add(adapter(0), Provenance(0, "fedavg", (), None, None), 1)
    return CommunityJournal(versions, SPEC, "fedavg", lambda: 100)


def test_a_checkpoint_survives_being_packed() -> None:
    best = HeldOutLosses({"ada": 2.4}, 0.9)
    checkpoint = replace(ended(3)[1], personal={"ada": 2.5}, best=best)
    again = unpack(pack(checkpoint), SPEC)
    assert (again.round, again.losses, again.evaluation) == (3, {"ada": 2.7}, 1.0)
    assert again.personal == {"ada": 2.5}
    assert again.best == best
    assert unpack(pack(ended(3)[1]), SPEC).best is None
    assert again.state.adapter.digest == checkpoint.state.adapter.digest


def test_a_grown_adapter_and_the_optimisers_memory_survive_being_packed() -> None:
    grown = append(adapter(1), adapter(2))
    moments = OptimizerState({"m.ab": adapter(3).vector})
    state = MethodState(grown, 2, {"basis": adapter(4).vector})
    again = unpack(pack(FederationCheckpoint(3, state, {}, moments)), SPEC)
    assert again.state.adapter.digest == grown.digest
    assert (again.state.rank, again.state.adapter.spec.rank) == (2, 4)
    assert np.array_equal(again.state.kept["basis"], adapter(4).vector)
    assert again.moments.moments.keys() == {"m.ab"}
    assert np.array_equal(again.moments.moments["m.ab"], adapter(3).vector)


def test_modules_a_method_has_added_stay_frozen_after_a_rollback(journal: CommunityJournal) -> None:
    journal = replace(journal, method="flora")
    grown = append(adapter(1), adapter(2))
    record, _ = ended(1)
    journal.write(record, FederationCheckpoint(1, MethodState(grown, 2), {}))
    journal.write(*ended(2))
    journal.versions.rollback(1, 5)
    last = journal.last()
    assert last is not None
    assert last.state.adapter.digest == grown.digest
    assert last.state.rank == 2


def test_rounds_are_resumed_from_the_last_one_written(journal: CommunityJournal) -> None:
    assert journal.last() is None
    for number in range(3):
        journal.write(*ended(number))
    last = journal.last()
    assert last is not None
    assert (last.round, last.state.adapter.digest) == (2, adapter(2).digest)
    versions = [record.version for record in journal.versions.database.versions()]
    assert [v.number for v in versions] == [0, 1, 2]  # round 0 moved nothing: no new version
    assert [v.parent_loss for v in versions] == [None, 3.0, 2.9]
    assert [v.evaluation for v in versions] == [None, 3.0, 2.0]
    assert versions[2].contributors == ("ada",)


@pytest.mark.parametrize("stored", [b"", b"PK\x03\x04 of another revision", None])
def test_a_state_that_cannot_be_read_is_made_anew_from_the_version_it_gave(
    journal: CommunityJournal, stored: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        journal.write(*ended(number))
    record, checkpoint = ended(1)
    record = replace(record, losses=checkpoint.losses)
    whole = bytearray(pack(checkpoint))
    whole[-1] ^= 1
    data = bytes(whole) if stored is None else stored
    journal.versions.database.put_round(1, True, json.dumps(record.as_json()), data)
    last = journal.last()
    assert last is not None
    assert last.state.adapter.digest == checkpoint.state.adapter.digest
    assert (last.round, last.losses, last.evaluation) == (1, checkpoint.losses, 3.0)
    assert "round 1's checkpoint is damaged" in caplog.text
    journal.versions.path(adapter(1).digest).write_bytes(b"torn")
    with pytest.raises(NomoatError, match="adapter: "):
        journal.last()


def test_an_abandoned_round_is_written_and_makes_no_version(journal: CommunityJournal) -> None:
    journal.write(*ended(0))
    journal.write(*ended(1, committed=False))
    last = journal.last()
    assert last is not None
    assert last.round == 1
    assert len(journal.versions.database.versions()) == 1


def test_rounds_that_came_to_nothing_cost_no_number_no_place_and_no_checkpoint(
    journal: CommunityJournal,
) -> None:
    """Training alone leaves the number free; updates that were asked for use it up."""
    store = journal.versions.database
    journal.write(*ended(0))
    start = journal.last()
    assert start is not None
    everybody = tuple(f"volunteer-{i}" for i in range(1000))
    phases = {"training": 1.0}
    for _ in range(5):
        idle = RoundRecord(1, False, "1 of 2 ready", everybody, seconds=phases, loss=3.0,
                           dropped=dict.fromkeys(everybody, "paused"), reusable=True)  # fmt: skip
        journal.write(idle, start)
    after = journal.last()
    assert after is not None
    assert (after.round, after.counted) == (0, 0)
    masked = replace(idle, seconds={**phases, "aggregating": 1.0}, reusable=False)
    journal.write(masked, after.passing(1))
    after = journal.last()
    assert after is not None
    assert (after.round, after.counted) == (1, 0)
    rejected = replace(masked, round=2, contributors=("ada",))
    journal.write(rejected, replace(after, round=2))
    again = journal.last()
    assert again is not None
    assert (again.round, again.counted) == (2, 1)
    journal.write(*ended(3))
    last = journal.last()
    assert last is not None
    rows = store._all("SELECT length(record) + length(checkpoint) FROM rounds WHERE committed = 0")
    assert len(rows) == 2
    assert all(size <= 4096 for (size,) in rows)
    kept = store._all("SELECT number FROM rounds WHERE length(checkpoint) > 0")
    assert kept == [(3,)]  # of the rounds before, it is never needed again


@pytest.mark.parametrize("where", ["put_round", "append_version"])
def test_a_kill_in_the_middle_leaves_the_round_before(
    journal: CommunityJournal, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    journal.write(*ended(0))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(journal.versions.database, where, killed)
    with pytest.raises(KeyboardInterrupt):
        journal.write(*ended(1))
    monkeypatch.undo()
    last = journal.last()
    assert last is not None
    assert last.round == 0
    assert journal.versions.verify() == 1
    journal.write(*ended(1))
    assert journal.versions.verify() == 2


def test_a_rollback_is_where_the_next_round_starts(journal: CommunityJournal) -> None:
    for number in range(3):
        journal.write(*ended(number))
    journal.versions.rollback(1, 200)
    last = journal.last()
    assert last is not None
    assert (last.round, last.state.adapter.digest) == (2, adapter(1).digest)
    assert last.losses == {}


def test_the_end_of_every_round_is_signed_and_volunteers_follow_it(
    journal: CommunityJournal,
) -> None:
    versions, public = journal.versions, journal.versions.key.public
    seen = extend(None, versions.lineage(0), CommunityKeys(public))
    assert (seen.next_round, seen.record.version.adapter) == (1, adapter(0).digest)
    found = []
    for number, committed in enumerate((True, True, False, True)):
        journal.write(*ended(number, committed))
        if number == 3:
            versions.rollback(1, 5)
        seen = extend(seen, versions.lineage(seen.record.version.number + 1), CommunityKeys(public))
        found.append((seen.next_round, seen.record.version.adapter))
    first = adapter(1).digest
    assert found == [(1, adapter(0).digest), (2, first), (3, first), (4, first)]


def test_the_round_whose_end_is_signed_is_the_one_before_that_is_begun_next(
    journal: CommunityJournal,
) -> None:
    """Whatever became of rounds; one that nobody was asked for an update in keeps its number."""
    versions, public = journal.versions, journal.versions.key.public
    void = replace(ended(2, committed=False)[0], contributors=(), reusable=True)
    lost = replace(void, reusable=False)
    older = json.dumps(replace(lost, round=5).as_json())
    writes: list[Callable[[], None]] = [
        lambda: journal.write(*ended(0)),
        lambda: journal.write(*ended(1)),
        lambda: journal.write(void, ended(1)[1]),
        lambda: journal.write(lost, ended(1)[1]),
        lambda: journal.write(replace(void, round=3), ended(1)[1]),
        lambda: journal.write(*ended(3)),
        lambda: journal.write(*ended(4, committed=False)),
        lambda: versions.database.put_round(5, False, older, pack(replace(ended(3)[1], round=5))),
    ]
    for write in writes:
        write()
        last = journal.last()
        assert last is not None
        assert extend(None, versions.lineage(0), CommunityKeys(public)).ended.round == last.round
