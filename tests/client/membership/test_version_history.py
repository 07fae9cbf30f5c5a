"""Versions that came are kept in order, each once, and a damaged line costs itself alone."""

from __future__ import annotations

from pathlib import Path

from builders import adapter
from nomoat.aggregation.protocol.lineage import SignedVersion, Version, sign
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.membership.version_history import FILE, MOST, note, read

KEY = SigningKey(b"\7" * 32)


def record(number: int) -> SignedVersion:
    digest = adapter(1).digest
    return sign(
        Version(
            number, b"p" * 32, digest, b"b" * 32, number, "fedavg", ("ada",), 3.0 - number / 1e4,
            3.0, None, "", 100 + number,
        ),
        KEY,
    )  # fmt: skip


def test_each_version_is_kept_once_and_in_order(tmp_path: Path) -> None:
    for number in (0, 1, 1, 0, 3):
        note(tmp_path, record(number), 2.5)
    assert [each.number for each in read(tmp_path)] == [0, 1, 3]
    assert read(tmp_path)[-1].mine == 2.5


def test_a_damaged_line_costs_itself_alone(tmp_path: Path) -> None:
    assert not read(tmp_path)
    note(tmp_path, record(1), None)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"number": 2, "ro\n[]\n')
    note(tmp_path, record(3), 2.0)
    assert [(each.number, each.mine) for each in read(tmp_path)] == [(1, None), (3, 2.0)]


def test_the_oldest_are_dropped(tmp_path: Path) -> None:
    lines = "".join(
        f'{{"number": {n}, "round": {n}, "at": 1, "loss": null, "mine": null}}\n'
        for n in range(MOST)
    )
    (tmp_path / FILE).write_text(lines)
    note(tmp_path, record(MOST), None)
    assert [read(tmp_path)[0].number, len(read(tmp_path))] == [1, MOST]


def test_the_bases_loss_is_filled_in_once_and_makes_the_gain(tmp_path: Path) -> None:
    note(tmp_path, record(1), 2.5)
    assert read(tmp_path)[-1].gain is None
    note(tmp_path, record(1), 2.25, 3.0)  # measured after the version came
    note(tmp_path, record(1), 2.25, 9.0)  # of rows that were edited since
    assert [(each.number, each.mine, each.gain) for each in read(tmp_path)] == [(1, 2.5, 0.5)]
    note(tmp_path, record(2), 2.0, 3.0)
    note(tmp_path, record(1), 2.0, 4.0)
    assert [each.gain for each in read(tmp_path)] == [0.5, 1.0]
