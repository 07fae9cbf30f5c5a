"""The receipts that a community's log on this machine answers for, out of all there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nomoat.aggregation.protocol.receipts import Receipt
from nomoat.client.membership.roster_file import RosterFile, joined_at
from nomoat.client.sent.log import SentMessage, answered_for, enrolled_at
from nomoat.client.sent.log_file import SentLog


def receipts_of_log(
    folder: Path, entries: Sequence[SentMessage], receipts: Sequence[Receipt], identity: bytes
) -> list[Receipt]:
    """Leave out receipts of a log that was put aside, or of a membership that was left.

    They are told apart by the community's clock, which dates them and the joining in its roster
    alike, in whole seconds; without a roster by this machine's. One of the very second in which it
    joined is a former membership's: this one had yet to be asked.
    """
    joined = joined_at(RosterFile(folder).entries(), identity)
    since = max(SentLog(folder).began(), enrolled_at(entries) if joined is None else joined + 1)
    return answered_for(entries, receipts, since)
