"""A person's word goes back at once, or when no round is under way; a kill loses none."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from builders import adapter
from nomoat.aggregation import methods
from nomoat.aggregation.errors import UsageError
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.journal import CommunityJournal
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import Provenance
from nomoat.server.release.releasing import ReleaseState, order, states
from nomoat.server.release.rolling_back import ask, go_back, heed, overruled, waiting
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import Overruled, RoundRecord
from nomoat.server.rounds.settings import AdapterSettings

NOW = 1000


def journal_of(community: OpenCommunity) -> CommunityJournal:
    spec, stopped = adapter(0).spec, lambda: overruled(community)
    return CommunityJournal(community.versions, spec, "fedavg", lambda: NOW, overruled=stopped)


def ended(number: int, committed: bool = True) -> tuple[RoundRecord, FederationCheckpoint]:
    state = methods.get("fedavg").begin(adapter(number))
    record = RoundRecord(number, committed, "", ("ada",), ("ada",))
    return record, FederationCheckpoint(number, state, {})


@pytest.fixture
def community(tmp_path: Path) -> OpenCommunity:
    """Three rounds were committed."""
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        adapter=AdapterSettings(rank=2, alpha=4.0),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    folder = Folder(tmp_path / "town")
    create(folder, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    opened = OpenCommunity.open(folder.root)
    opened.versions.add(adapter(0), Provenance(0, "fedavg", (), None, None), 1)
    for number in (1, 2, 3):
        journal_of(opened).write(*ended(number))
    return opened


def newest(community: OpenCommunity) -> tuple[int, bytes]:
    version = community.versions.get(None).version
    return version.number, version.adapter


def test_going_back_signs_the_reason_and_holds_what_it_undoes_but_for_what_somebody_released(
    community: OpenCommunity,
) -> None:
    last = community.versions.get(None).version.number
    order(community, last, ReleaseState.RELEASED, "good", NOW)
    record = go_back(community, last - 2, " it forgot\nFrench ", NOW)
    assert record.version.note == f"rollback to version {last - 2}: it forgot French"
    assert record.version.adapter == adapter(1).digest
    assert states(community, NOW)[last] is ReleaseState.RELEASED
    assert states(community, NOW)[last - 1] is ReleaseState.HELD
    assert states(community, NOW)[last - 2] is ReleaseState.RELEASED
    with pytest.raises(UsageError, match="160 characters"):
        go_back(community, last - 2, "x" * 161, NOW)


def test_an_order_waits_for_the_end_of_a_round_whose_candidate_is_not_taken(
    community: OpenCommunity,
) -> None:
    before = newest(community)
    ask(community, 1, "it forgot French", NOW)
    assert newest(community) == before
    journal = journal_of(community)
    with pytest.raises(Overruled, match="the community goes back to version 1"):
        journal.write(*ended(4))
    assert newest(community) == before
    assert community.registrar.database.round_record(4) is None
    journal.write(*ended(4, committed=False))
    heed(community, NOW)
    assert waiting(community) is None
    found = journal.standing(ended(4)[1])
    assert found.state.adapter.digest == newest(community)[1] == adapter(1).digest
    assert found.round == 4
    heed(community, NOW)  # once
    assert newest(community)[0] == before[0] + 1
    journal.write(*ended(5))
    assert newest(community) == (before[0] + 2, adapter(5).digest)
    assert community.versions.verify() == before[0] + 3


def test_the_last_word_counts_and_one_that_is_carried_out_at_once_settles_it(
    community: OpenCommunity,
) -> None:
    ask(community, 1, "", NOW)
    ask(community, 2, "", NOW)
    heed(community, NOW)
    assert newest(community)[1] == adapter(2).digest
    ask(community, 1, "", NOW)
    go_back(community, 2, "", NOW)
    assert waiting(community) is None


def test_an_order_that_cannot_be_carried_out_is_refused_or_dropped_and_rounds_go_on(
    community: OpenCommunity, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match="no version 9"):
        ask(community, 9, "", NOW)
    before = newest(community)
    ask(community, 1, "", NOW)
    community.versions.path(adapter(1).digest).unlink()  # pruned meanwhile
    community.versions.database.note_pruned([adapter(1).digest], NOW)
    heed(community, NOW)
    assert waiting(community) is None
    assert newest(community) == before
    assert "version 1 was pruned" in caplog.text
    with pytest.raises(UsageError, match="was pruned"):
        ask(community, 1, "", NOW)


def _killed_in(root: Path, point: str) -> None:
    """Order a rollback, carry it out, and be killed at one of its writes."""
    community = OpenCommunity.open(root)
    database = community.registrar.database
    ask(community, 1, "why", NOW)
    if point == "asked":
        os.kill(os.getpid(), signal.SIGKILL)
    run = database.run

    def watched(sql: str, *values: object) -> list[object]:
        if sql.startswith(point):
            os.kill(os.getpid(), signal.SIGKILL)
        return run(sql, *values)

    database.run = watched  # type: ignore[method-assign]
    heed(community, NOW)


@pytest.mark.parametrize("point", ["asked", "INSERT INTO releases", "DELETE FROM"])
def test_whoever_is_killed_between_order_and_effect_goes_back_once(
    community: OpenCommunity, point: str
) -> None:
    before = newest(community)
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_in, args=(community.folder.root, point)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    again = OpenCommunity.open(community.folder.root)
    assert newest(again) == before
    found = waiting(again)
    assert found is not None
    assert (found.to, found.reason) == (1, "why")
    for _ in range(2):
        heed(again, NOW)
    assert newest(again) == (before[0] + 1, adapter(1).digest)
    assert again.versions.verify() == before[0] + 2


def test_a_round_that_is_not_taken_leaves_no_file(community: OpenCommunity) -> None:
    before = set(community.folder.adapters.iterdir())
    ask(community, 1, "", NOW)
    with pytest.raises(Overruled):
        journal_of(community).write(*ended(4))
    assert set(community.folder.adapters.iterdir()) == before
