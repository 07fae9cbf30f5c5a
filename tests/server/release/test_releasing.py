"""An accepted version is given out when rule, delay and people allow it; a held one never."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import adapter
from nomoat.aggregation import methods
from nomoat.aggregation.errors import UsageError
from nomoat.server.cli.commands import app
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.journal import CommunityJournal
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    ReleaseSettings,
    Settings,
)
from nomoat.server.community.versions import Provenance
from nomoat.server.release.releasing import ReleaseState, newest_released, order, states
from nomoat.server.release.rolling_back import roll_back
from nomoat.server.rounds.acceptance import HeldOutLosses
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.settings import AdapterSettings
from nomoat.serving.sources.community import CoordinatorsCommunity

NOW = 1000


@pytest.fixture
def community(tmp_path: Path) -> OpenCommunity:
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        adapter=AdapterSettings(rank=2, alpha=4.0),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    folder = Folder(tmp_path / "town")
    create(folder, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    opened = OpenCommunity.open(folder.root)
    for number in range(4):
        made = Provenance(number, "fedavg", ("ada",), 3.0, 3.1)
        opened.versions.add(adapter(number), made, 100 * number)
    return opened


def by(community: OpenCommunity, rule: str, delay: float = 0.0) -> OpenCommunity:
    release = ReleaseSettings(by=rule, delay=delay)  # type: ignore[arg-type]
    return replace(community, settings=community.settings.model_copy(update={"release": release}))


def given_out(community: OpenCommunity, now: int = NOW) -> int:
    return newest_released(community, now).version.number


def test_by_the_gate_the_newest_is_given_out_once_its_delay_is_over(
    community: OpenCommunity,
) -> None:
    assert given_out(community) == 3
    assert given_out(by(community, "gate", 250), 500) == 2
    assert given_out(by(community, "gate", 250), 550) == 3
    assert given_out(by(community, "gate", 10_000), 500) == 0


def test_where_a_person_decides_nothing_is_given_out_without_its_word(
    community: OpenCommunity,
) -> None:
    careful = by(community, "person", 250)
    assert given_out(careful) == 0
    assert order(careful, 2, ReleaseState.RELEASED, "looked at", 400) is ReleaseState.CANDIDATE
    assert given_out(careful, 400) == 0
    assert given_out(careful, 450) == 2


def test_what_is_held_is_not_given_out_until_it_is_released(community: OpenCommunity) -> None:
    assert order(community, 3, ReleaseState.HELD, "rude", NOW) is ReleaseState.HELD
    assert given_out(community) == 2
    assert CoordinatorsCommunity(community).exact("community") == "community@2"
    assert CoordinatorsCommunity(community).exact("community@3") == "community@3"  # by its number
    order(community, 3, ReleaseState.RELEASED, "", NOW)
    assert given_out(community) == 3
    for number in range(4):
        order(community, number, ReleaseState.HELD, "", NOW)
    assert given_out(community) == 0  # the base model


def test_the_commands_say_what_is_given_out(community: OpenCommunity) -> None:
    where = ["--dir", str(community.folder.root)]
    held = CliRunner().invoke(app, ["adapter", "hold", "3", *where, "--reason", "rude"])
    assert held.stdout.startswith("version 3 is held; version 2 is given out")
    listed = CliRunner().invoke(app, ["adapter", "list", "--json", *where])
    assert '"state": "held"' in listed.stdout
    released = CliRunner().invoke(app, ["adapter", "release", "3", *where])
    assert released.stdout == "version 3 is released; version 3 is given out\n"
    with pytest.raises(UsageError, match="no version 9"):
        order(community, 9, ReleaseState.HELD, "", NOW)
    with pytest.raises(UsageError, match="200 characters"):
        order(community, 1, ReleaseState.HELD, "x" * 201, NOW)


def careless(community: OpenCommunity, delay: float = 0.0) -> OpenCommunity:
    """The community with three versions more of which the first is the best, and a rule of two."""
    for number, loss in ((4, 2.0), (5, 2.2), (6, 2.3)):
        made = Provenance(number, "fedavg", ("ada",), 3.0, 3.1, evaluation=loss)
        community.versions.add(adapter(number), made, 100 * number)
    rule = ReleaseSettings(delay=delay, rollback_after=2)
    return replace(community, settings=community.settings.model_copy(update={"release": rule}))


def test_a_regression_is_gone_back_from_and_not_given_out_any_more(
    community: OpenCommunity,
) -> None:
    assert roll_back(community, NOW) is None  # no rule
    town = careless(community, 250)
    assert given_out(town) == 6
    record = roll_back(town, NOW)
    assert record is not None
    assert record.version.adapter == town.versions.get(4).version.adapter
    assert record.version.note.startswith("by rule: rollback to version 4: the 2 after it")
    assert record.version.parent == town.versions.get(6).digest
    assert town.versions.verify() == 8
    assert given_out(town) == 4  # the good one, until the delay of what was added is over
    assert given_out(town, NOW + 250) == 7
    assert roll_back(town, NOW) is None
    held = [number for number, state in states(town, NOW).items() if state is ReleaseState.HELD]
    assert held == [5, 6]


def test_the_rule_goes_past_no_version_that_a_person_released_and_back_to_none_that_is_held(
    community: OpenCommunity,
) -> None:
    town = careless(community)
    order(town, 5, ReleaseState.RELEASED, "better answers", NOW)
    assert roll_back(town, NOW) is None
    order(town, 5, ReleaseState.HELD, "worse after all", NOW)
    order(town, 4, ReleaseState.HELD, "rude", NOW)
    record = roll_back(town, NOW)
    assert record is None  # the versions before were not measured on these rows


def test_rounds_go_on_from_the_good_version_with_the_best_that_was_measured(
    community: OpenCommunity,
) -> None:
    spec = adapter(0).spec
    for number, loss in ((4, 2.0), (5, 2.2), (6, 2.3)):
        journal = CommunityJournal(community.versions, spec, "fedavg", lambda: 100)
        state = methods.get("fedavg").begin(adapter(number))
        record = RoundRecord(
            number, True, "", ("ada",), ("ada",), losses={"ada": loss}, evaluation=loss,
            adapter=state.adapter.digest.hex(),
        )  # fmt: skip
        best = HeldOutLosses({"ada": 2.0}, 2.0)
        journal.write(
            record, FederationCheckpoint(number, state, {"ada": loss}, evaluation=loss, best=best)
        )
    rule = ReleaseSettings(rollback_after=2)
    town = replace(community, settings=community.settings.model_copy(update={"release": rule}))
    assert roll_back(town, NOW) is not None
    for _ in range(2):  # here, and after a restart
        last = CommunityJournal(community.versions, spec, "fedavg", lambda: 100).last()
        assert last is not None
        assert last.round == 6
        assert last.state.adapter.digest == adapter(4).digest
        assert last.evaluation == 2.0
        assert last.best == HeldOutLosses({"ada": 2.0}, 2.0)
