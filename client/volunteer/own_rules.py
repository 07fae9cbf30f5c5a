"""The rules a volunteer holds its coordinator to: consent, settings, roster, versions, diary."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import replace
from functools import partial

from nomoat.aggregation.errors import DoesNotFit
from nomoat.aggregation.protocol.enrolment import CommunityInfo
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
            may_begin=day.begin,
        ),
        store.load(),
        MaskedSession(membership, store.marks()),
        TrainingOrigin(store.draw, lineage.version_of, lineage.is_present),
    )


def _rank(settings: VolunteerSettings, info: CommunityInfo) -> int:
    """The rank that fits now; it did at joining, so what has the memory may go away again."""
    try:
        return rank_of(settings, info)
    except DoesNotFit as problem:
        log.warning("rank 1 until the next start: %s", problem)
        return 1
