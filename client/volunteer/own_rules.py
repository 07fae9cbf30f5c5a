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
from nomoat.aggregation.secagg.audit.terms import LEAST_VALUES
from nomoat.aggregation.secagg.diary import Mark, set_back
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.machine.free_memory import MemoryBound
from nomoat.client.membership.agreement import load as load_agreement
from nomoat.client.membership.agreement import within
from nomoat.client.membership.day_of_rounds import DayOfRounds
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.roster_cache import RosterCache
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.sent.log import masked_by_round
from nomoat.client.sent.log_file import SentLog
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training.community_fit import rank_of
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.limits_watch import stamp_of

log = logging.getLogger(__name__)


def round_session(
    kit: Kit, cache: RosterCache, store: DiskUpdateStore, lineage: PinnedLineage
) -> RoundSession:
    """The machine that answers this community's requests, and all that it is bound by."""
    limits, membership = rules(kit, kit.settings, cache)
    return RoundSession(
        kit.settings.name,
        kit.folder.info().base_hash,
        limits,
        store.load(),
        MaskedSession(membership, _diary(kit, store)),
        TrainingOrigin(store.draw, lineage.version_of, lineage.is_present, signed=True),
    )


def rules(
    kit: Kit, settings: VolunteerSettings, cache: RosterCache
) -> tuple[TaskLimits, Membership]:
    """Return what was agreed to on joining, and `settings` of the owner's within that."""
    info = kit.folder.info()
    agreed = load_agreement(kit.folder.root, info)
    most = math.ceil(agreed.at_most(agreed.rounds_per_day))
    day = DayOfRounds(kit.folder.root, min(most, settings.rounds_a_day or most))
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
            audit_values=LEAST_VALUES,
            noise=agreed.noise,
        ),
        lambda _session: os.urandom(32),
        info.secure,
        partial(cache.long_known, settings.known_days) if settings.known_peers else frozenset,
        time.time,
    )
    limits = replace(
        settings.limits(_rank(settings, info, agreed.memory)),
        agreed=partial(within, agreed),
        may_train=day.begin,
        may_measure=day.measure,
    )
    return limits, membership


class RulesWatch:
    """Follows an owner's edit of settings.toml; looked at before each task."""

    def __init__(self, kit: Kit, cache: RosterCache, session: RoundSession) -> None:
        self._kit, self._cache, self._session = kit, cache, session
        self._seen = stamp_of(kit.folder)

    def look(self) -> None:
        """Have the session follow the file, if it has changed and can be read."""
        stamp = stamp_of(self._kit.folder)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._session.follow(*rules(self._kit, self._kit.folder.load(), self._cache))
        except NomoatError as problem:
            log.warning("%s; the rules of before stay in force", problem)


def _diary(kit: Kit, store: DiskUpdateStore) -> tuple[Mark, ...]:
    """The marks of this machine's sums; with one that says they are not all, if they are not.

    A folder that was put back from a backup has fewer marks than masked updates have left, by the
    log of what left and by the receipts for it (docs/protocol.md §19.5).
    """
    marks, sent_log = store.marks(), SentLog(kit.folder.root)
    info = kit.folder.info()
    receipts, _ = sent_log.receipts(kit.coordinator.keys, kit.coordinator.identity.public)
    try:
        entries = sent_log.check().entries
    except NomoatError:  # then nothing leaves anyway
        entries = ()
    if not set_back(marks, masked_by_round(entries, receipts if info.secure else ())):
        return marks
    log.warning("held/ is older than what has left: nothing is summed before another version")
    return (*marks, Mark("lost", b"", 0, 0))


def _rank(settings: VolunteerSettings, info: CommunityInfo, bound: MemoryBound | None) -> int:
    """The rank that fits now; it did at joining, so what has the memory may go away again."""
    try:
        return rank_of(settings, info, bound)
    except DoesNotFit as problem:
        log.warning("rank 1 until the next start: %s", problem)
        return 1
