"""Everything that leaves is in the log before it leaves, with what it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from builders import SPEC
from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import Decline, Ready, Report
from nomoat.aggregation.protocol.receipts import packet_digest
from nomoat.aggregation.secagg.messages import (
    MaskedReport,
    SessionOffer,
    ShareSet,
    SurvivorSet,
    SurvivorSignature,
)
from nomoat.client.round.work import UpdateSummary
from nomoat.client.sent.log_file import LOG_NAME, SentLog
from nomoat.client.sent.recorder import HAND_OVER_S, OTHERS_TRAIN_S, Recorder
from nomoat.flower.packets import to_reply

OFFER = SessionOffer(
    b"s" * 32, 3, 1, b"b" * 32, b"a" * 32, b"m" * 32, b"r" * 32, (0.5, 0.25), 16, 2, 9, 100, 100,
    True,
)  # fmt: skip


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower makes no message outside of a run."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def request(message: object) -> Message:
    packet = wire.encode(message)
    parts = {name: ConfigRecord({"bytes": part}) for name, part in packet.parts().items()}
    action = wire.action_of(wire.kind_of(type(message)))
    asked = Message(RecordDict({**parts}), 1, action, group_id="3")
    asked.metadata.__dict__["_message_id"] = "m"
    return asked


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def recorder(folder: Path) -> Recorder:
    made = Recorder(SentLog(folder), "town", "localhost:1", Clock())
    made.uploading(UpdateSummary(SPEC.manifest, 1.5))
    return made


def test_a_masked_update_is_logged_with_tensors_norm_clip_and_the_sessions_size(
    tmp_path: Path,
) -> None:
    record = recorder(tmp_path)
    record(request(OFFER), to_reply(wire.encode(Decline(3, "paused")), request(OFFER)))
    asked = request(ShareSet(bytes([0b1011])))
    packet = wire.encode(MaskedReport(bytes(64), b"x" * 100))
    record(asked, to_reply(packet, asked))
    entry = SentLog(tmp_path).check().entries[-1]
    assert (entry.message, entry.round, entry.to) == ("sa.masked", 3, "localhost:1")
    assert (entry.masked, entry.session_size, entry.clip, entry.norm) == (True, 3, 0.5, 1.5)
    assert [t.name for t in entry.tensors] == [t.name for t in SPEC.manifest.tensors]
    assert entry.bytes == packet.size
    assert entry.packet == packet_digest(packet).hex()


def test_the_signature_on_the_survivors_is_logged_with_their_number(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    record(request(OFFER), to_reply(wire.encode(Decline(3, "paused")), request(OFFER)))
    asked = request(SurvivorSet(bytes([0b1001])))
    record(asked, to_reply(wire.encode(SurvivorSignature(bytes(64))), asked))
    entry = SentLog(tmp_path).check().entries[-1]
    assert (entry.message, entry.masked, entry.session_size) == ("sa.signed", False, 2)


def test_a_plain_report_is_logged_as_not_masked(tmp_path: Path) -> None:
    asked = request(Ready(3, 1, 1, 1.0, 1.0, 1.0, 1))
    values = np.zeros(SPEC.size, np.float32).tobytes()
    recorder(tmp_path)(asked, to_reply(wire.encode(Report(3, 1, 0.5, values)), asked))
    (entry,) = SentLog(tmp_path).check().entries
    assert not entry.masked
    assert entry.tensors


def test_an_error_is_logged_too(tmp_path: Path) -> None:
    asked = request(OFFER)
    recorder(tmp_path)(asked, Message(Error(1, "ValueError"), reply_to=asked))
    (entry,) = SentLog(tmp_path).check().entries
    assert (entry.message, entry.bytes) == ("error", len("ValueError"))


def test_what_cannot_be_logged_raises_so_that_it_does_not_leave(tmp_path: Path) -> None:
    record, asked = recorder(tmp_path), request(OFFER)
    reply = to_reply(wire.encode(Decline(3, "paused")), asked)
    record(asked, reply)
    (tmp_path / LOG_NAME).write_bytes(b"{}\n")
    with pytest.raises(NomoatError, match="sent log, line 1"):
        record(asked, reply)


def test_an_update_may_be_asked_for_until_the_round_is_measured_or_long_silent(
    tmp_path: Path,
) -> None:
    record, asked = recorder(tmp_path), request(OFFER)
    assert not record.handing_over()
    ready = to_reply(wire.encode(Ready(3, 1, 1, 1.0, 1.0, 1.0, 1)), asked)
    record(asked, ready)
    assert record.handing_over()
    record(asked, to_reply(wire.encode(Decline(3, "paused")), asked))
    assert not record.handing_over()
    record(asked, ready)
    assert isinstance(record.clock, Clock)
    record.clock.now += HAND_OVER_S
    assert record.handing_over()  # others may train for an hour yet
    record.clock.now += OTHERS_TRAIN_S
    assert not record.handing_over()
