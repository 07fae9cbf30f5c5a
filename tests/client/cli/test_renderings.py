from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.receipts import Receipt, credits_of
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.cli import sent_page as sent
from nomoat.client.cli.identity import render_phrase
from nomoat.client.cli.status_page import (
    render_orders,
)
from nomoat.client.data.secrets_report import render_scan
from nomoat.client.data.secrets_scan import Allowlist, scan
from nomoat.client.identity import transfer
from nomoat.client.identity.keys import load_identity
from nomoat.client.machine.readings import Orders
from nomoat.client.sent.log import ChainHead, SentMessage, SentTensor, append, check, reconcile
from nomoat.storage.private import create_private

NOW = datetime(2026, 11, 23, 14, 2, tzinfo=UTC)
KEY = SigningKey(b"v" * 32)


def entry(number: int = 1, masked: bool = True) -> SentMessage:
    tensors = tuple(SentTensor(f"layer.{i}.lora_A.weight", (8, 64)) for i in range(5))
    packet = (bytes([number]) * 32).hex()
    return SentMessage(
        1.7e9, "c", "https://c", "report", number, 4096, packet, masked, tensors, 0.25
    )


def test_orders_are_said_in_words() -> None:
    assert "until nomoat resume" in render_orders(Orders(paused=True), NOW)
    assert "until 16:02" in render_orders(Orders(True, NOW + timedelta(hours=2)), NOW)
    assert "after the round" in render_orders(Orders(finish=True), NOW)
    assert render_orders(Orders(True, NOW - timedelta(1)), NOW).startswith("training")


def test_the_sent_log_says_what_left_and_how_it_was_hidden() -> None:
    text = sent.render_sent([entry()])
    assert "1 messages, 4.0 KiB in all" in text
    assert "5 tensors (layer.0.lora_A.weight 8×64" in text
    assert "and 2 more" in text
    assert "norm 0.25, unclipped" in text
    assert "masked" in text
    assert "NOT masked" in sent.render_sent([entry(masked=False)])
    full = replace(entry(), clip=1.0, session_size=12, epsilon=2.0, delta=1e-5)
    text = sent.render_entry(full)
    assert "values within ±1" in text
    assert "; masked among 12" in text
    assert "weak: masked among 7" in sent.render_entry(replace(full, session_size=7))
    assert "ε = 2 at δ = 1e-05" in text
    assert sent.render_sent([]) == "nothing has left this machine"
    assert "nothing has been sent" in sent.render_preview(entry())


def test_verification_ends_with_its_verdict() -> None:
    head, line = append(ChainHead(), entry(1))
    checked = check(line, head)
    receipt = Receipt(b"c" * 32, KEY.public, 1, bytes([1]) * 32, 10, 1_700_000_000)
    good = sent.render_verified(checked, reconcile(checked.entries, [receipt]), [])
    assert good.splitlines()[-1] == "verified"
    assert good.splitlines()[-2] == sent.UNSEEN  # beside the good verdict, too
    stray = replace(receipt, packet=b"\x09" * 32)
    bad = sent.render_verified(checked, reconcile(checked.entries, [stray]), [])
    assert bad.splitlines()[-1] == "NOT verified"
    assert "left unseen" in bad
    forged = sent.render_verified(checked, reconcile(checked.entries, []), ["x: not valid"])
    assert forged.splitlines()[-1] == "NOT verified"


def test_credit_is_told_per_community() -> None:
    receipts = [
        Receipt(bytes([c]) * 32, KEY.public, r, bytes(32), 1000, 1_700_000_000)
        for c in (1, 2)
        for r in (1, 2)
    ]
    text = sent.render_credit(credits_of(receipts), {b"\1" * 32: "village"})
    assert text.splitlines()[0].startswith("village: 2 rounds, 2,000 tokens")
    assert text.splitlines()[1].startswith("0202020202020202…")
    assert "no receipts" in sent.render_credit((), {})


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 30, "5.0 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert sent.size(count) == text


def test_an_identity_goes_to_paper_and_back(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    create_private(old, KEY.raw().hex().encode())
    shown = render_phrase(transfer.export_phrase(old))
    public = transfer.import_phrase(shown.rpartition("\n\n")[0], new)
    assert public == KEY.public.hex()
    assert load_identity(new).public == KEY.public


def test_an_identity_goes_to_a_file_and_back_and_replaces_nothing(tmp_path: Path) -> None:
    old, file, new = tmp_path / "old", tmp_path / "backup", tmp_path / "new"
    create_private(old, KEY.raw().hex().encode())
    transfer.export_file(old, file, "correct horse", os.urandom)
    assert transfer.import_file(file, "correct horse", new) == KEY.public.hex()
    with pytest.raises(NomoatError, match="exists already"):
        transfer.import_file(file, "correct horse", old)
    with pytest.raises(NomoatError, match="exists already"):
        transfer.export_file(old, file, "correct horse", os.urandom)
    assert KEY.raw().hex().encode() not in file.read_bytes()
    with pytest.raises(NomoatError, match="cannot read"):
        transfer.import_file(tmp_path / "absent", "correct horse", tmp_path / "x")


def test_a_scan_tells_what_is_left_out_and_how_to_keep_it() -> None:
    found = scan([("rows.jsonl:1", "write to jane@mail.example-shop.de"), ("rows.jsonl:2", "hi")])
    text = render_scan(found, Allowlist())
    assert "1 × E-mail address" in text
    assert "rows.jsonl:1" in text
    assert "jane@mail.example-shop.de" not in text
    assert "1 of 2 rows are left out" in text
    assert "0 of 2 rows" in render_scan(found, Allowlist(kinds=frozenset({"E-mail address"})))
    assert "nothing looks like" in render_scan(scan([("a:1", "hi")]), Allowlist())
