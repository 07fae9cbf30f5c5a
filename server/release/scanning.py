"""A version is compared with the one that is given out, before it is given out itself.

Texts are tried in questions (lora/scan); a version that answers one of them quite otherwise, when
all others moved it little, is held until a person has looked. With `[release] scan_seconds` above 0
no version since the first that was scanned is given out unscanned, but at a person's word.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import Future

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.lora.scan.plan import Shifts
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.release.findings import found
from nomoat.server.release.releasing import (
    ReleaseState,
    awaiting_scan,
    newest_released,
    order,
    orders,
)

log = logging.getLogger(__name__)

Scan = Callable[[Adapter, Adapter], Future[Shifts]]
NAMED = 3  # texts in a reason


def scan_versions(community: OpenCommunity, scan: Scan, now: int) -> None:
    """Scan what waits for it; hold what is found, unless a person has released it."""
    for number in sorted(awaiting_scan(community)):
        try:
            _scan(community, scan, community.versions.get(number), now)
        except NomoatError as problem:
            log.warning("version %d was not scanned and stays a candidate: %s", number, problem)


def _scan(community: OpenCommunity, scan: Scan, record: SignedVersion, now: int) -> None:
    number, standing = record.version.number, newest_released(community, now)
    before, after = (community.versions.load(one) for one in (standing, record))
    shifts = Shifts({}, 0)
    if before.digest != after.digest and before.spec == after.spec:
        shifts = scan(before, after).result()
    texts = found(shifts.of)
    with community.registrar.database.transaction():
        tried = {"against": standing.version.number, "tried": len(shifts.of), "asked": shifts.asked}
        said = {"found": json.dumps(texts), "at": now}
        community.registrar.database.put("scans", "number", number=number, **tried, **said)
        if texts and number not in orders(community):
            order(community, number, ReleaseState.HELD, _reason(texts), now)
    if texts:
        log.warning("version %d is held: %s", number, _reason(texts))


def _reason(texts: tuple[str, ...]) -> str:
    shown = ", ".join(json.dumps(text) for text in texts[:NAMED])
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return f"scan: it answers quite otherwise after {shown}{more}"[:200]
