"""Network caps hold over time, whatever the size of a message."""

from __future__ import annotations

import time

import pytest

from nomoat.client.connection.rate_cap import ByteBucket, RateCap, spend


def test_a_network_cap_holds_over_time() -> None:
    bucket, now, sent = ByteBucket(1000.0, 2000.0, 2000.0, 0.0), 0.0, 0
    for _ in range(50):
        bucket, wait = spend(bucket, 700, now)
        now += wait
        sent += 700
    assert sent <= 2000 + 1000 * now + 700


def test_a_message_larger_than_the_bucket_waits_and_goes() -> None:
    bucket, wait = spend(ByteBucket(100.0, 1000.0, 0.0, 0.0), 5000, 0.0)
    assert wait == 10.0
    _, again = spend(bucket, 100, 10.0)
    assert again == pytest.approx(41.0)  # 4 000 bytes of debt, and its own 100


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_cap_waits_as_long_as_the_bytes_take(
    monkeypatch: pytest.MonkeyPatch, rate: float | None
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: sum(waited))
    monkeypatch.setattr(time, "sleep", waited.append)
    cap = RateCap(rate)
    for _ in range(10):
        cap.keep(1000)
    # A second's worth may go at once.
    assert sum(waited) == (0 if rate is None else pytest.approx(9.0, abs=1.0))
