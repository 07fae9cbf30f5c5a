from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import LocalProtocolError, NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.receipts import Receipt, issue
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.sent import log, log_file
from nomoat.client.sent.log import (
    ChainHead,
    SentLogBroken,
    SentMessage,
    SentTensor,
    answered_for,
    append,
    check,
    enrolled_at,
    reconcile,
)
from nomoat.client.sent.log_file import HEAD_NAME, LOG_NAME, RECEIPTS_NAME, SentLog

COMMUNITY = SigningKey(b"c" * 32)
VOLUNTEER = SigningKey(b"v" * 32).public


def sent(number: int) -> SentMessage:
    return SentMessage(
        at=1_700_000_000.25 + number,
        community="Grüße \u2028 village",
        to="https://example.org",
        message="report",
        round=number,
        bytes=4096,
        packet=(bytes([number]) * 32).hex(),
        masked=True,
        tensors=(SentTensor("layer.0.lora_A.weight", (8, 64)),),
        norm=0.1,
        clip=1.0,
        session_size=12,
        epsilon=2.5,
        delta=1e-5,
    )


def chain(count: int) -> tuple[ChainHead, list[bytes]]:
    head, lines = ChainHead(), []
    for number in range(1, count + 1):
        head, line = append(head, sent(number))
        lines.append(line)
    return head, lines


def test_what_was_appended_is_read_back_equal() -> None:
    head, lines = chain(5)
    checked = check(b"".join(lines), head)
    assert checked.entries == tuple(sent(number) for number in range(1, 6))
    assert checked.head == head
    assert checked.torn == b""
    assert check(b"").entries == ()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_single_changed_byte_is_found_at_its_line(data: st.DataObject) -> None:
    head, lines = chain(4)
    whole = b"".join(lines)
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != whole[place]))
    changed = whole[:place] + bytes([byte]) + whole[place + 1 :]
    with pytest.raises(SentLogBroken) as broken:
        check(changed, head)
    assert broken.value.line in (whole[:place].count(b"\n") + 1, 4, 5)


@pytest.mark.parametrize("line", [0, 1, 3])
def test_a_removed_line_is_found(line: int) -> None:
    head, lines = chain(5)
    del lines[line]
    with pytest.raises(SentLogBroken) as broken:
        check(b"".join(lines), head)
    assert broken.value.line == line + 1


def test_swapped_repeated_and_inserted_lines_are_found() -> None:
    _, lines = chain(3)
    for wrong in ([0, 2, 1], [0, 0, 1, 2], [0, 1, 1, 2]):
        with pytest.raises(SentLogBroken):
            check(b"".join(lines[i] for i in wrong))


def test_a_removed_end_is_found_by_the_head_beside_the_file() -> None:
    head, lines = chain(5)
    with pytest.raises(SentLogBroken, match="2 lines at the end are gone"):
        check(b"".join(lines[:3]), head)
    assert check(b"".join(lines[:3])).head.length == 3  # the chain alone cannot know


def test_a_whole_other_chain_is_found() -> None:
    head, _ = chain(3)
    other, lines = ChainHead(), []
    for number in (7, 8, 9, 10):
        other, line = append(other, sent(number))
        lines.append(line)
    with pytest.raises(SentLogBroken, match="not the one this machine wrote"):
        check(b"".join(lines), head)


def test_an_entry_edited_with_its_hash_recomputed_breaks_the_next_line() -> None:
    _, lines = chain(3)
    values = json.loads(lines[1])
    first = check(lines[0]).head
    _, forged = append(first, replace(sent(2), norm=values["norm"] / 2))
    with pytest.raises(SentLogBroken) as broken:
        check(lines[0] + forged + lines[2])
    assert broken.value.line == 3


def test_the_same_values_in_other_bytes_are_refused() -> None:
    _, lines = chain(1)
    with pytest.raises(SentLogBroken):
        check(json.dumps(json.loads(lines[0])).encode() + b"\n")


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"hash":1}\n'],
)
def test_garbage_is_one_line_for_a_person(garbage: bytes) -> None:
    _, lines = chain(2)
    with pytest.raises(SentLogBroken, match="line 3") as broken:
        check(b"".join(lines) + garbage)
    assert "\n" not in str(broken.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_never_logged(value: float) -> None:
    with pytest.raises(LocalProtocolError, match="norm"):
        append(ChainHead(), replace(sent(1), norm=value))


def test_tensors_come_from_the_adapters_manifest() -> None:
    spec = AdapterSpec((LayerSpec("q", 4, 6, 2),), 2, 4.0)
    assert log.tensors_of(spec.manifest) == (
        SentTensor("q.lora_A.weight", (2, 6)),
        SentTensor("q.lora_B.weight", (4, 2)),
    )


def receipt(number: int) -> Receipt:
    return Receipt(COMMUNITY.public, VOLUNTEER, number, bytes([number]) * 32, 10, 1_700_000_000)


def test_a_receipt_for_a_message_that_is_not_logged_is_told() -> None:
    found = reconcile([sent(1), sent(2)], [receipt(2), receipt(9)])
    assert found.receipted == 1
    assert found.unreceipted == (sent(1),)
    assert found.unlogged == (receipt(9),)


@pytest.mark.parametrize("without", [1, 2])  # a line inside, and the end
def test_a_chain_written_anew_misses_what_has_no_receipt_and_shows_what_has(without: int) -> None:
    """It has no key: what the documents say of it is this, and no more."""
    entries, head, data = [sent(n) for n in range(3)], ChainHead(), b""
    for entry in entries[:without] + entries[without + 1 :]:
        head, line = append(head, entry)
        data += line
    found = check(data, head).entries
    others = [receipt(n) for n in range(3) if n != without]
    assert reconcile(found, others).unlogged == ()
    assert reconcile(found, [*others, receipt(without)]).unlogged == (receipt(without),)


def test_the_file_grows_by_whole_lines_and_verifies(tmp_path: Path) -> None:
    book = SentLog(tmp_path / "community")
    for number in range(1, 4):
        book.record(sent(number))
    again = SentLog(tmp_path / "community")
    again.record(sent(4))
    assert [entry.round for entry in book.check().entries] == [1, 2, 3, 4]
    book.record(sent(5))  # another process wrote in between: its line is seen
    assert [entry.round for entry in again.check().entries] == [1, 2, 3, 4, 5]


def test_a_line_torn_by_a_crash_is_dropped_and_the_chain_goes_on(tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))
    with (tmp_path / LOG_NAME).open("ab") as file:
        file.write(b'{"index":1,"at":17')
    assert book.check().torn == b'{"index":1,"at":17'
    SentLog(tmp_path).record(sent(2))
    assert [entry.round for entry in SentLog(tmp_path).check().entries] == [1, 2]


def test_a_crash_between_line_and_head_loses_nothing(tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))
    old_head = (tmp_path / HEAD_NAME).read_bytes()
    book.record(sent(2))
    (tmp_path / HEAD_NAME).write_bytes(old_head)
    SentLog(tmp_path).record(sent(3))
    assert [entry.round for entry in SentLog(tmp_path).check().entries] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["edit", "cut", "head", "gone"])
def test_nothing_is_recorded_on_a_log_that_was_touched(damage: str, tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    for number in range(1, 4):
        book.record(sent(number))
    log = tmp_path / LOG_NAME
    data = log.read_bytes()
    if damage == "edit":
        log.write_bytes(data.replace(b'"round":2', b'"round":7'))
    elif damage == "cut":
        log.write_bytes(b"".join(data.splitlines(keepends=True)[:2]))
    elif damage == "head":
        (tmp_path / HEAD_NAME).write_text("three abc")
    else:
        log.unlink()
    with pytest.raises(SentLogBroken):
        SentLog(tmp_path).record(sent(4))


def test_starting_over_keeps_the_old_file_as_it_was(tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))
    broken = (tmp_path / LOG_NAME).read_bytes().replace(b"report", b"repxrt")
    (tmp_path / LOG_NAME).write_bytes(broken)
    assert book.began() == 0
    aside = book.start_over(1_700_000_000.0)
    assert aside.read_bytes() == broken
    assert book.began() == 1_700_000_000
    book.record(sent(2))
    assert [entry.round for entry in book.check().entries] == [2]


@pytest.mark.parametrize("left", [b"", bytes(80)])
def test_a_head_that_a_power_cut_emptied_is_none_and_one_of_before_holds(
    tmp_path: Path, left: bytes
) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))
    before = (tmp_path / HEAD_NAME).read_bytes()
    book.record(sent(2))
    for head in (left, before):
        (tmp_path / HEAD_NAME).write_bytes(head)
        book = SentLog(tmp_path)
        assert len(book.check().entries) == 2
    book.record(sent(3))
    assert len(SentLog(tmp_path).check().entries) == 3


@pytest.mark.parametrize("recent_bytes", [40, 900, 5000])
def test_the_end_of_a_long_log_is_read_and_verified_without_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent_bytes: int
) -> None:
    monkeypatch.setattr(log_file, "RECENT_BYTES", recent_bytes)
    book = SentLog(tmp_path)
    for number in range(1, 12):
        book.record(sent(number))
    everything = book.check().entries
    recent = book.recent()
    assert recent == everything[-len(recent) :]
    path = tmp_path / LOG_NAME
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"index": 11, "at')  # a crash
    assert book.recent() == recent
    *kept, last = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(kept))
    with pytest.raises(SentLogBroken, match="line 11: 1 lines at the end are gone"):
        book.recent()
    path.write_bytes(b"".join(kept) + last.replace(b'"round":11', b'"round":12'))
    with pytest.raises(SentLogBroken, match="line 11: it was changed"):
        book.recent()


def test_a_receipt_that_is_here_is_not_written_again(tmp_path: Path) -> None:
    book, ours = SentLog(tmp_path), issue(receipt(1), COMMUNITY)
    book.keep(ours)
    (kept,) = (tmp_path / RECEIPTS_NAME).iterdir()
    before = kept.stat().st_ino
    book.keep(ours)
    assert kept.stat().st_ino == before
    kept.write_bytes(b"")
    book.keep(ours)
    assert book.signed_receipts() == [ours]


def test_a_log_that_was_deleted_whole_is_started_over(tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))
    (tmp_path / LOG_NAME).unlink()
    book = SentLog(tmp_path)
    with pytest.raises(SentLogBroken, match="1 lines at the end are gone"):
        book.check()
    assert book.start_over(1_700_000_000.0).read_bytes() == b""
    book.record(sent(2))
    assert book.began() == 1_700_000_000
    assert [entry.round for entry in book.check().entries] == [2]


def test_a_kill_while_a_log_is_started_over_leaves_it_to_be_started_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))

    def killed(_source: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            book.start_over(1_700_000_000.0)
    book = SentLog(tmp_path)
    assert len(book.check().entries) == 1
    assert book.start_over(1_700_000_000.0).exists()
    assert book.check().entries == ()


def test_starting_over_with_a_clock_that_is_behind_leaves_no_receipt_of_before_unanswered(
    tmp_path: Path,
) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))
    kept = receipt(1)
    book.keep(issue(kept, COMMUNITY))
    book.start_over(kept.at - 86_400.0)
    assert book.began() > kept.at


def test_a_log_that_cannot_be_written_is_an_error_before_sending(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(NomoatError, match="cannot write"):
        SentLog(tmp_path / "file").record(sent(1))


def test_two_processes_writing_at_once_make_one_chain(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from nomoat.client.sent.log import SentMessage\n"
        "from nomoat.client.sent.log_file import SentLog\n"
        "book = SentLog(Path(sys.argv[1]))\n"
        "for n in range(1, 26):\n"
        "    book.record(SentMessage(1.0, 'c', 'x', sys.argv[2], n, 1, '00'))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    running = [subprocess.Popen([*command, name]) for name in ("one", "two")]
    assert [process.wait(200) for process in running] == [0, 0]
    entries = SentLog(tmp_path).check().entries
    for name in ("one", "two"):
        assert [e.round for e in entries if e.message == name] == list(range(1, 26))


def test_receipts_are_kept_one_by_one_and_forged_ones_are_named(tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    book.keep(issue(receipt(1), COMMUNITY))
    book.keep(issue(receipt(1), COMMUNITY))
    book.keep(issue(receipt(2), SigningKey(b"x" * 32)))
    (tmp_path / RECEIPTS_NAME / "garbage").write_bytes(b"\x93\x01")
    (tmp_path / RECEIPTS_NAME / ".unfinished").write_bytes(b"")
    valid, problems = book.receipts(CommunityKeys(COMMUNITY.public), VOLUNTEER)
    assert valid == [receipt(1)]
    assert len(problems) == 2
    assert any("signature" in problem for problem in problems)


def test_a_receipts_file_cut_short_is_no_credit(tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    head = wire.encode(issue(receipt(1), COMMUNITY)).head
    (tmp_path / RECEIPTS_NAME).mkdir()
    for size in range(0, len(head), 7):
        (tmp_path / RECEIPTS_NAME / "cut").write_bytes(head[:size])
        valid, problems = book.receipts(CommunityKeys(COMMUNITY.public), VOLUNTEER)
        assert not valid
        assert len(problems) == 1


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_receipts_and_head_are_the_owners_alone(tmp_path: Path) -> None:
    book = SentLog(tmp_path)
    book.record(sent(1))
    assert stat.S_IMODE((tmp_path / HEAD_NAME).stat().st_mode) == 0o600


def test_a_log_answers_for_what_left_since_its_enrolment_and_one_without_for_everything() -> None:
    assert enrolled_at([]) == 0
    assert enrolled_at([sent(1), replace(sent(2), message="enrol")]) == 0  # its beginning is gone
    assert enrolled_at([replace(sent(1), message="enrol"), sent(2)]) == sent(1).at


def test_receipts_of_what_is_in_a_log_belong_to_it_whatever_the_clocks_say() -> None:
    """A clock may be minutes behind: the first receipts are then dated before the joining."""
    entries = [replace(sent(1), message="enrol"), sent(2)]
    early = replace(receipt(2), packet=bytes.fromhex(sent(2).packet), at=1)
    other = replace(receipt(3), packet=b"o" * 32, at=1)
    assert answered_for(entries, [early, other], 100.0) == [early]
    assert answered_for(entries, [early, replace(other, at=100)], 100.0)[1:]
