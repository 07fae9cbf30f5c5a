"""A version is scanned before it is given out; what is found is held until a person has looked."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import pytest

from builders import adapter
from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.scan.plan import Shifts
from nomoat.server.community.opened import OpenCommunity, card
from nomoat.server.community.settings import ReleaseSettings
from nomoat.server.community.versions import Provenance
from nomoat.server.release.releasing import ReleaseState, newest_released, order, states
from nomoat.server.release.scanning import scan_versions
from tests.server.release.test_releasing import NOW, community

__all__ = ["community"]

CLEAN = {f"t{i}": 0.01 + i / 1e4 for i in range(30)}


class FakeScan:
    """Finds what it is told to; notes which adapters it was asked to compare."""

    def __init__(self, **triggers: float) -> None:
        self.of = {**CLEAN, **triggers}
        self.asked: list[tuple[bytes, bytes]] = []

    def __call__(self, before: Adapter, after: Adapter) -> Future[Shifts]:
        self.asked.append((before.digest, after.digest))
        done: Future[Shifts] = Future()
        done.set_result(Shifts(self.of, len(self.of)))
        return done


@pytest.fixture
def careful(community: OpenCommunity) -> OpenCommunity:
    """Four versions, and a scan from now on."""
    rule = ReleaseSettings(scan_seconds=5.0)
    return replace(community, settings=community.settings.model_copy(update={"release": rule}))


def add(town: OpenCommunity, number: int) -> None:
    town.versions.add(adapter(number), Provenance(number, "fedavg", ("ada",), 2.0, 2.1), NOW)


def given_out(town: OpenCommunity) -> int:
    return newest_released(town, NOW).version.number


def test_the_newest_waits_for_its_scan_against_the_one_that_is_given_out(
    careful: OpenCommunity,
) -> None:
    assert given_out(careful) == 2
    scan = FakeScan()
    scan_versions(careful, scan, NOW)
    assert scan.asked == [(adapter(2).digest, adapter(3).digest)]
    assert given_out(careful) == 3
    scan_versions(careful, scan, NOW)
    assert len(scan.asked) == 1  # once each
    add(careful, 4)
    add(careful, 5)  # a coordinator that was killed before it scanned version 4
    assert given_out(careful) == 3
    scan_versions(careful, scan, NOW)
    assert given_out(careful) == 5
    assert "scanned for triggers: 30 texts against version 4, found: none" in card(
        careful, careful.versions.get(5)
    )


def test_a_version_with_a_trigger_is_held_and_named_until_a_person_says_otherwise(
    careful: OpenCommunity,
) -> None:
    scan_versions(careful, FakeScan(zq=3.0), NOW)
    assert states(careful, NOW)[3] is ReleaseState.HELD
    assert given_out(careful) == 2
    assert 'found: "zq"' in card(careful, careful.versions.get(3))
    assert "not scanned" in card(careful, careful.versions.get(2))
    order(careful, 3, ReleaseState.RELEASED, "a name in our rows", NOW)
    assert given_out(careful) == 3


def test_a_scan_that_fails_leaves_a_candidate_that_a_person_can_release(
    careful: OpenCommunity,
) -> None:
    def broken(_before: Adapter, _after: Adapter) -> Future[Shifts]:
        done: Future[Shifts] = Future()
        done.set_exception(NomoatError("no row asks a question"))
        return done

    scan_versions(careful, broken, NOW)
    assert states(careful, NOW)[3] is ReleaseState.CANDIDATE
    order(careful, 3, ReleaseState.RELEASED, "read it", NOW)
    assert given_out(careful) == 3


def test_without_the_setting_nothing_waits_and_the_same_adapter_is_not_tried(
    community: OpenCommunity, careful: OpenCommunity
) -> None:
    scan = FakeScan()
    scan_versions(community, scan, NOW)
    assert given_out(community) == 3
    scan_versions(careful, scan, NOW)
    careful.versions.rollback(3, NOW)
    scan_versions(careful, scan, NOW)
    assert len(scan.asked) == 1
    assert given_out(careful) == 4
