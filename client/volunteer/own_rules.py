"""The rules a volunteer holds its coordinator to: consent, settings, roster, versions, diary."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import replace
from functools import partial

from nomoat.aggregation.errors import DoesNotFit, NomoatError
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.secagg.audit.sketch import WORDS
from nomoat.aggregation.secagg.diary import Mark, set_back
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.membership.agreement import load as load_agreement
from nomoat.client.membership.agreement import within
from nomoat.client.membership.day_of_rounds import DayOfRounds
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.roster_cache import RosterCache
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.session import RoundSession
from nomoat.client.round.training_origin import TrainingOrigin
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.sent.log import masked_by_round
from nomoat.client.sent.log_file import SentLog
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training.community_fit import rank_of
from nomoat.client.volunteer.kit import Kit

log = logging.getLogger(__name__)


def round_session(
    kit: Kit, cache: RosterCache, store: DiskUpdateStore, lineage: PinnedLineage
) -> RoundSession:
    """The machine that answers this community's requests, and all that it is bound by."""
    info, settings = kit.folder.info(), kit.settings
    agreed = load_agreement(kit.folder.root, info)
    day = DayOfRounds(kit.folder.root, math.ceil(agreed.at_most(agreed.rounds_per_day)))
    membership = Membership(
        kit.coordinator.identity,
        cache.current,
        Policy(
            min_participants=info.min_participants,
            allow_weak=info.allow_weak and agreed.weak,
            known_peers=settings.known_peers,
            repeats=settings.repeats,
            fewest=settings.min_participants,
            audit_words=WORDS if settings.audit else 0,
            noise=agreed.noise,
        ),
        lambda _session: os.urandom(32),
        info.secure,
        partial(cache.long_known, settings.known_days) if settings.known_peers else frozenset,
        time.time,
    )
    return RoundSession(
        settings.name,
        info.base_hash,
        replace(
            settings.limits(_rank(settings, info)),
            agreed=partial(within, agreed),
            may_train=day.begin,
            may_measure=day.measure,
        ),
        store.load(),
        MaskedSession(membership, _diary(kit, store)),
        TrainingOrigin(store.draw, lineage.version_of, lineage.is_present, signed=True),
    )


def _diary(kit: Kit, store: DiskUpdateStore) -> tuple[Mark, ...]:
    """The marks of this machine's sums; with one that says they are not all, if they are not.

    A folder that was put back from a backup has fewer marks than masked updates have left, by the
    log of what left and by the receipts for it (docs/protocol.md §19.5).
    """
    marks, sent_log = store.marks(), SentLog(kit.folder.root)
    info = kit.folder.info()
    receipts, _ = sent_log.receipts(info.public, kit.coordinator.identity.public)
    try:
        entries = sent_log.check().entries
    except NomoatError:  # then nothing leaves anyway
        entries = ()
    if not set_back(marks, masked_by_round(entries, receipts if info.secure else ())):
        return marks
    log.warning("held/ is older than what has left: nothing is summed before another version")
    return (*marks, Mark("lost", b"", 0, 0))


def _rank(settings: VolunteerSettings, info: CommunityInfo) -> int:
    """The rank that fits now; it did at joining, so what has the memory may go away again."""
    try:
        return rank_of(settings, info)
    except DoesNotFit as problem:
        log.warning("rank 1 until the next start: %s", problem)
        return 1
