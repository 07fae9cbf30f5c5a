"""Candidates and releases: an accepted version is given out when rule, delay and people allow it.

A version that has passed its gates is a *candidate*. By the gate's word alone (`[release] by =
"gate"`) it is released after `delay` seconds, unless a person holds it; with `by = "person"` when
somebody has said so, and not before the delay. `adapter export`, `serve` and `chat` give out the
newest release where no number is said.

    newest_released(community, now)         # SignedVersion; version 0 if nothing else is
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import ReleaseSettings


class ReleaseState(StrEnum):
    """A version's way to the world."""

    CANDIDATE = "candidate"
    RELEASED = "released"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """A person's last word on a version. at: unix time."""

    state: ReleaseState
    reason: str
    at: int


def state_of(
    record: SignedVersion,
    word: ReleaseOrder | None,
    rule: ReleaseSettings,
    now: int,
    awaiting: Collection[int] = (),
) -> ReleaseState:
    """Judge one version; the first is the base model, which needs nobody's word.

    awaiting: versions that are to be scanned or measured yet; a person's word goes before.
    """
    if word is not None and word.state is ReleaseState.HELD:
        return ReleaseState.HELD
    if record.version.number == 0:
        return ReleaseState.RELEASED
    if word is None and record.version.number in awaiting:
        return ReleaseState.CANDIDATE
    said = rule.by == "gate" or word is not None
    ripe = now >= record.version.at + rule.delay
    return ReleaseState.RELEASED if said and ripe else ReleaseState.CANDIDATE


def orders(community: OpenCommunity) -> Mapping[int, ReleaseOrder]:
    """Version → what people have said of it."""
    rows = community.registrar.database.rows("SELECT number, state, reason, at FROM releases")
    return {number: ReleaseOrder(ReleaseState(state), why, at) for number, state, why, at in rows}


def states(community: OpenCommunity, now: int) -> dict[int, ReleaseState]:
    """Version → candidate, released or held."""
    said, rule, waits = orders(community), community.settings.release, _awaiting(community)
    return {
        record.version.number: state_of(record, said.get(record.version.number), rule, now, waits)
        for record in community.versions.database.versions()
    }


def awaiting_scan(community: OpenCommunity) -> frozenset[int]:
    """Versions that are to be scanned yet: those since the first scan, or the newest alone."""
    if not community.settings.release.scan_seconds:
        return frozenset()
    return _since_first(community, "SELECT number FROM scans")


def awaiting_canaries(community: OpenCommunity) -> frozenset[int]:
    """Versions that canaries are to be measured of yet, in the same way."""
    if not community.settings.release.canary_seconds:
        return frozenset()
    return _since_first(community, "SELECT number FROM canary_checks")


def _awaiting(community: OpenCommunity) -> frozenset[int]:
    return awaiting_scan(community) | awaiting_canaries(community)


def _since_first(community: OpenCommunity, sql: str) -> frozenset[int]:
    done = {number for (number,) in community.registrar.database.rows(sql)}
    newest = community.versions.get(None).version.number
    first = min(done, default=newest)
    return frozenset(range(max(1, first), newest + 1)) - done


def order(
    community: OpenCommunity, number: int, state: ReleaseState, reason: str, now: int
) -> ReleaseState:
    """Write a person's word down; where the version stands then. UsageError without one."""
    record = community.versions.get(number)
    if len(reason) > 200:
        raise UsageError("a reason has 200 characters at most")
    word = {"state": state.value, "reason": reason, "at": now}
    community.registrar.database.put("releases", "number", number=number, **word)
    said, rule = orders(community)[number], community.settings.release
    return state_of(record, said, rule, now, _awaiting(community))


def newest_released(community: OpenCommunity, now: int) -> SignedVersion:
    """The newest version that is given out; version 0 if no other is."""
    stand = states(community, now)
    for record in reversed(community.versions.database.versions()):
        if stand[record.version.number] is ReleaseState.RELEASED:
            return record
    return community.versions.get(0)
