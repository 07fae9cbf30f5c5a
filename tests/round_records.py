"""Three ended rounds as a coordinator writes them down."""

from __future__ import annotations

import json
from dataclasses import replace

from nomoat.server.community.opened import OpenCommunity
from nomoat.server.rounds.records import RoundRecord

RECORDS = (
    RoundRecord(
        0, True, "the base model", ("ada", "ben"), loss=3.0, losses={"ada": 2.5, "ben": 3.5},
        bytes_up=10, bytes_down=20, seconds={"evaluating": 2.0},
    ),
    RoundRecord(
        1, True, "held-out loss changed by -2.1%", ("ada", "ben", "cleo"), ("ada", "ben"),
        {"cleo": "too late to report"}, {"dan": "its seal does not hold"}, 2.9,
        {"ada": 2.4, "ben": 3.4}, tokens=512, bytes_up=1000, bytes_down=2000,
        seconds={"training": 6.0, "aggregating": 3.0, "evaluating": 1.0},
        session="weak: 2 participants", train_seconds={"ada": 1.0, "ben": 2.0, "cleo": 3.0},
    ),
    RoundRecord(
        2, False, "1 of 2 ready", ("ada", "ben"), (), {"ben": "gone"}, loss=2.9,
        losses={"ada": 2.4, "ben": 3.4}, seconds={"training": 4.0}, train_seconds={"ada": 1.0},
    ),
)  # fmt: skip


def write_rounds(community: OpenCommunity, *records: RoundRecord) -> None:
    """Put ended rounds into the community's database."""
    for record in records or RECORDS:
        text = json.dumps(record.as_json())
        community.registrar.database.put_round(record.round, record.committed, text, b"")


def renamed(record: RoundRecord, name: str) -> RoundRecord:
    """The round with everything a volunteer or a machine said replaced by `name`."""
    return replace(
        record, reason=name, cohort=(name,), contributors=(name,), dropped={name: name},
        refused={name: name}, session=name,
    )  # fmt: skip
