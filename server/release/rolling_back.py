"""Going back by rule, in a community's records: a version is added, and what it undoes is held."""

from __future__ import annotations

import json
import logging

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


def roll_back(community: OpenCommunity, now: int) -> SignedVersion | None:
    """Go back if the rule of `[release]` says so; the version that was added, None if not.

    Versions that it undoes are held, but for those that a person has released.
    """
    settings = community.settings.release
    rule = RollbackRule(settings.rollback_after, settings.rollback_rise)
    if not rule.after or (found := regressed(measured(community), rule)) is None:
        return None
    said = orders(community)
    with community.registrar.database.transaction():
        record = community.versions.rollback(found.to, now, _note(found))
        for number in found.worse:
            if number not in said:
                why = f"gone back from, by rule, in version {record.version.number}"
                order(community, number, ReleaseState.HELD, why, now)
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


def _note(found: Regression) -> str:
    count = len(found.worse)
    return (
        f"{SENT_BACK}{ROLLED_BACK}{found.to}: the {count} after it measured worse "
        f"(the last by {found.rise:.1%})"
    )
