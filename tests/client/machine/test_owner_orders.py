from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.client.machine.owner_orders import (
    FILE_NAME,
    decode,
    encode,
    finish,
    pause,
    read,
    resume,
    span_s,
    write,
)
from nomoat.client.machine.readings import Orders

NOW_S = 1_700_000_000.0
UNTIL = datetime.fromtimestamp(NOW_S + 7200, UTC)


@pytest.mark.parametrize(
    "orders",
    [
        Orders(),
        Orders(paused=True),
        Orders(True, UNTIL),
        Orders(finish=True),
        Orders(True, None, True),
    ],
)
def test_orders_survive_the_file(orders: Orders, tmp_path: Path) -> None:
    write(tmp_path / "state", orders)
    assert read(tmp_path / "state") == orders


def test_no_file_means_no_orders(tmp_path: Path) -> None:
    assert read(tmp_path) == Orders()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"[1]",
        b"\xff",
        b'{"paused": 1, "paused_until": null, "finish": false}',
        b'{"paused": false, "paused_until": "tomorrow", "finish": false}',
        b'{"paused": false, "paused_until": 1e300, "finish": false}',
        b'{"paused": false, "paused_until": NaN, "finish": false}',
        b"[" * 100_000,
        encode(Orders(True, UNTIL))[:-9],
    ],
)
def test_orders_that_cannot_be_read_are_a_pause(data: bytes) -> None:
    assert decode(data) == Orders(paused=True)


def test_a_file_that_cannot_be_opened_is_a_pause(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    assert read(tmp_path) == Orders(paused=True)
    with pytest.raises(NomoatError, match="cannot write"):
        write(tmp_path, Orders())


def test_pausing_twice_is_pausing_and_resume_takes_everything_back() -> None:
    orders = pause(Orders(), NOW_S, 7200, UTC)
    assert orders.paused_until == UNTIL
    assert pause(orders, NOW_S, 7200, UTC) == orders
    assert pause(orders, NOW_S, None, UTC).paused_until is None
    assert resume(finish(orders)) == Orders()


def test_finish_keeps_a_pause() -> None:
    assert finish(Orders(paused=True)) == Orders(paused=True, finish=True)


@pytest.mark.parametrize("for_s", [0, -1, math.nan, math.inf, 1e12])
def test_a_pause_of_no_length_is_refused(for_s: float) -> None:
    with pytest.raises(UsageError, match="a pause lasts"):
        pause(Orders(), NOW_S, for_s, UTC)


def test_lengths_of_time() -> None:
    assert [span_s(t) for t in ("90s", "30m", "2h", "1d", "1h30m", "1.5 h")] == [
        *(90, 1800, 7200, 86400, 5400, 5400)
    ]
    for text in ("", "soon", "2", "2h later", "-2h", "h2"):
        with pytest.raises(UsageError):
            span_s(text)
