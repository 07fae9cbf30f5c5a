"""Work that fails in a simulation says why: in the round's record, the summary, on the terminal."""

from __future__ import annotations

from typing import Any

from builders import adapter, train_task
from nomoat.aggregation.errors import NomoatError
from nomoat.client.round.app import RequestHandler
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.failures import (
    ExplainingJournal,
    FailureNotes,
    failure_lines,
    failures,
)
from nomoat.simulations.pooled_trainer import NoUpdateStore


class Broken:
    """Trains nothing."""

    def train(self, work: Any) -> Any:
        raise NomoatError("training diverged at step 3")

    def evaluate(self, work: Any) -> Any:
        raise NomoatError("the memory is too small")


class Kept:
    """A journal that keeps what is written."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []

    def last(self) -> None:
        return None

    def history(self) -> list[RoundRecord]:
        return self.records

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        del checkpoint
        self.records.append(record)


def test_the_record_of_a_round_says_why_work_failed() -> None:
    notes, kept = FailureNotes(), Kept()
    journal = ExplainingJournal(kept, notes)
    session = RoundSession("ada", b"b" * 32, TaskLimits())
    handler = RequestHandler(session, Broken(), NoUpdateStore(), (notes.observer("ada"),))
    answer = handler.answer(train_task(adapter(0)))
    told = getattr(answer, "reason", None)
    assert told == "work failed"  # a coordinator learns no more
    checkpoint: Any = None  # it is handed on
    dropped = {"ada": told, "ben": "gone", "cy": "work failed"}
    journal.write(RoundRecord(1, False, "0 of 2 ready", dropped=dropped), checkpoint)
    journal.write(RoundRecord(2, False, "0 of 2 ready", dropped=dropped), checkpoint)
    assert [record.dropped["ada"] for record in kept.records] == [
        "work failed: training diverged at step 3",
        "work failed",  # not what was true a round ago
    ]
    assert kept.records[0].dropped["ben"] == "gone"
    assert kept.records[0].dropped["cy"] == "work failed"
    found = [record.as_json() for record in kept.records]
    assert failures(found) == {"training diverged at step 3": ["ada"]}
    assert failure_lines(found) == ["ada: training diverged at step 3"]


def test_many_who_fail_alike_are_told_in_one_line() -> None:
    why = "work failed: the memory is too small"
    record = {"dropped": {f"v{number}": why for number in range(9)}}
    assert failure_lines([record, record]) == ["v0, v1, v2 and 6 more: the memory is too small"]
