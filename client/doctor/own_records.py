"""The promises made to a volunteer, checked against what is on its machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nomoat.aggregation.errors import NomoatError
from nomoat.client.doctor.kept_files import damage
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import agreement, pinned_lineage
from nomoat.client.membership.receipted_log import receipts_of_log
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.sent.log import reconcile
from nomoat.client.sent.log_file import SentLog


def broken_promises(folder: CommunityFolder, identity: bytes) -> Iterator[str]:
    """Yield a line for each promise that does not hold; `identity` is this volunteer's key.

    The log of what left is whole, its receipts are signed and name what is in it, no update left
    for two sums, what is pinned of roster and versions can be read and follows, and the newest
    version names no less noise than was agreed to. A log that was deleted whole looks like that of
    a new machine here; `nomoat sent --verify` is strict about it.
    """
    bad = damage(folder)
    if bad is not None:
        yield bad[0]
    sent_log = SentLog(folder.root)
    try:
        entries = sent_log.check().entries
    except NomoatError as problem:
        yield str(problem)
        return
    receipts, problems = sent_log.receipts(folder.keys(), identity)
    yield from problems
    # Earlier ones are of a log that was put aside, or of a machine that was left.
    current = receipts_of_log(folder.root, entries, receipts, identity)
    yield from (
        f"a receipt of round {lost.round} is for a packet that the log does not hold"
        for lost in reconcile(entries, current).unlogged
    )
    yield from _twice(folder)
    yield from _noise(folder)


def _twice(folder: CommunityFolder) -> Iterator[str]:
    """Updates that left for two sums, by the marks that were made before each of them left."""
    marks = DiskUpdateStore(folder.held).marks()
    left = Counter((mark.round, mark.exchange) for mark in marks if mark.kind == "masked")
    for (number, exchange), times in left.items():
        if times > 1:
            yield f"the update of round {number} left {times} times in exchange {exchange}"


def _noise(folder: CommunityFolder) -> Iterator[str]:
    """The newest version's word on the noise in its sum."""
    known = pinned_lineage.read(folder.root)
    noise = None if known is None else known.record.version.noise
    if known is None or noise is None:
        return
    agreed, number = agreement.load(folder.root, folder.info()), known.record.version.number
    if not noise.enough:
        yield f"version {number}: its noise does not come to the epsilon it names"
    if noise.noise_multiplier < agreed.noise_multiplier:
        yield (
            f"version {number} has noise of {noise.noise_multiplier:.4g} times the bound, less "
            f"than the {agreed.noise_multiplier:.4g} that was agreed to"
        )
