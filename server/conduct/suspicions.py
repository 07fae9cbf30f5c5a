"""The present suspicions of a community, as its database has the rounds that ended."""

from __future__ import annotations

import json
from collections.abc import Mapping

from nomoat.server.community.database import Database
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.telling import told

LOOKED_AT = 300  # rounds, with a sum or without


def suspicions(database: Database) -> Mapping[str, str]:
    """Volunteer → a sentence about it, for those who more likely spoil sums than not."""
    last = database.last_record()
    if last is None:
        return {}
    newest = RoundRecord.from_json(json.loads(last)).round
    texts = database.rounds_after(max(0, newest - LOOKED_AT))
    return told(RoundRecord.from_json(json.loads(text)) for text in texts)
