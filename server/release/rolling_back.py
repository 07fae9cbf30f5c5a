"""Going back, by rule or at a person's word: a version is added, and what it undoes is held.

A person's word to a community that is up waits in its database (`ask`) until no round is under way
(`heed`). A round that ends meanwhile began from what is to be undone: it is not taken
(`overruled`). Order, end of a round and effect are transactions of one database, so a kill between
any two of them loses none and does none twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import ROLLED_BACK, SENT_BACK
from nomoat.server.release.regression import (
    MeasuredVersion,
    Regression,
    RollbackRule,
    regressed,
)
from nomoat.server.release.releasing import ReleaseState, order, orders
from nomoat.server.rounds.acceptance import HeldOutLosses
from nomoat.server.rounds.records import RoundRecord

log = logging.getLogger(__name__)

MOST_REASON = 160  # characters


@dataclass(frozen=True, slots=True)
class OrderedRollback:
    """A person's word that waits: go back to version `to`. at: unix time."""

    to: int
    reason: str
    at: int


def go_back(community: OpenCommunity, number: int, reason: str, now: int) -> SignedVersion:
    """Go back to a version at a person's word; the version that was added.

    What waited is settled by it. UsageError if there is no such version, or it was pruned.
    """
    said = _reason(reason)
    with community.registrar.database.transaction():
        old = community.versions.get(number).version
        later = community.versions.database.versions(number + 1)
        undone = [each.version.number for each in later if each.version.adapter != old.adapter]
        note = f"{ROLLED_BACK}{number}" + (f": {said}" if said else "")
        record = community.versions.rollback(number, now, note)
        _hold(community, undone, f"gone back from in version {record.version.number}", now)
        forget(community)
    return record


def ask(community: OpenCommunity, number: int, reason: str, now: int) -> None:
    """Have a community that is up go back when no round is under way; the last word counts.

    UsageError if there is no such version, or it was pruned.
    """
    said = _reason(reason)
    with community.registrar.database.transaction():
        community.versions.load(community.versions.get(number))
        order_of = {"version": number, "reason": said, "at": now}
        community.registrar.database.put("ordered_rollback", "one", one=0, **order_of)


def waiting(community: OpenCommunity) -> OrderedRollback | None:
    """Return the order that waits, if one does."""
    sql = "SELECT version, reason, at FROM ordered_rollback"
    rows = community.registrar.database.rows(sql)
    return OrderedRollback(*rows[0]) if rows else None


def forget(community: OpenCommunity) -> None:
    """Let no order wait any more."""
    community.registrar.database.run("DELETE FROM ordered_rollback")


def overruled(community: OpenCommunity) -> str:
    """Say why a round that ends now is not taken; "" if it may be."""
    found = waiting(community)
    return "" if found is None else f"the community goes back to version {found.to}"


def heed(community: OpenCommunity, now: int) -> None:
    """Go back if that was ordered. No round may be under way.

    An order that cannot be carried out any more is dropped, and the log says so.
    """
    if (found := waiting(community)) is None:
        return
    try:
        record = go_back(community, found.to, found.reason, now)
    except NomoatError as problem:
        log.warning("going back to version %d was ordered, and is left: %s", found.to, problem)
        with community.registrar.database.transaction():
            forget(community)
    else:
        log.warning("version %d: %s", record.version.number, record.version.note)


def roll_back(community: OpenCommunity, now: int) -> SignedVersion | None:
    """Go back if the rule of `[release]` says so; the version that was added, None if not.

    Versions that it undoes are held, but for those that a person has released.
    """
    settings = community.settings.release
    rule = RollbackRule(settings.rollback_after, settings.rollback_rise)
    if not rule.after or (found := regressed(measured(community), rule)) is None:
        return None
    with community.registrar.database.transaction():
        record = community.versions.rollback(found.to, now, _note(found))
        why = f"gone back from, by rule, in version {record.version.number}"
        _hold(community, found.worse, why, now)
    log.warning("version %d: %s", record.version.number, record.version.note)
    return record


def measured(community: OpenCommunity) -> list[MeasuredVersion]:
    """All versions with their losses, as the rule sees them."""
    store, said = community.versions.database, orders(community)
    pruned = store.pruned()
    rounds = (RoundRecord.from_json(json.loads(text)) for text in store.rounds())
    losses = {each.adapter: each.losses for each in rounds if each.committed}
    found = []
    for version in (record.version for record in store.versions()):
        word, by_rule = said.get(version.number), version.note.startswith(SENT_BACK)
        restarts = bool(version.note) and version.number > 0 and not by_rule
        released = word is not None and word.state is ReleaseState.RELEASED
        found.append(
            MeasuredVersion(
                version.number,
                version.adapter,
                HeldOutLosses(losses.get(version.adapter.hex(), {}), version.evaluation),
                by_rule,
                restarts or released,
                version.adapter in pruned or (word is not None and word.state is ReleaseState.HELD),
            )
        )
    return found


def _hold(community: OpenCommunity, numbers: Iterable[int], why: str, now: int) -> None:
    """Hold versions, but for those that a person has said something of."""
    said = orders(community)
    for number in numbers:
        if number not in said:
            order(community, number, ReleaseState.HELD, why, now)


def _reason(text: str) -> str:
    """Return a reason as it is signed, for everybody to read; UsageError if it is too long."""
    said = one_line(text).strip()
    if len(said) > MOST_REASON:
        raise UsageError(f"a reason has {MOST_REASON} characters at most")
    return said


def _note(found: Regression) -> str:
    count = len(found.worse)
    return (
        f"{SENT_BACK}{ROLLED_BACK}{found.to}: the {count} after it measured worse "
        f"(the last by {found.rise:.1%})"
    )
