"""Orders from the page, which are those of `nomoat pause`, `resume` and `finish`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from nomoat.aggregation.errors import UsageError
from nomoat.client.cli.status_page import render_orders
from nomoat.client.home import CommunityFolder
from nomoat.client.machine import owner_orders
from nomoat.client.machine.probes import local_now
from nomoat.client.machine.readings import Orders
from nomoat.client.volunteer.status import running

MORNING: Final = 7  # o'clock, at which "until tomorrow" ends


def until_tomorrow_s(now: datetime) -> float:
    """Seconds from `now` (local) until seven in the morning of the next day."""
    day = (now + timedelta(days=1)).date()
    morning = datetime(day.year, day.month, day.day, MORNING, tzinfo=now.tzinfo)
    return morning.timestamp() - now.timestamp()


def _pause(span_s: float | None) -> Callable[[Orders], Orders]:
    return lambda orders: owner_orders.pause(orders, time.time(), span_s, UTC)


ORDERS: Final[Mapping[str, Callable[[], Callable[[Orders], Orders]]]] = MappingProxyType(
    {
        "pause-1h": lambda: _pause(3600.0),
        "pause-2h": lambda: _pause(7200.0),
        "pause-tomorrow": lambda: _pause(until_tomorrow_s(local_now(time.time()))),
        "pause": lambda: _pause(None),
        "resume": lambda: owner_orders.resume,
        "finish": lambda: owner_orders.finish,
    }
)


def give(folder: CommunityFolder, order: str) -> str:
    """Put an order in force; a sentence that says what holds now."""
    if order not in ORDERS:
        raise UsageError("there is no such order")
    if order == "finish" and not running(folder):
        return f"{folder.name()}: not running"
    orders = ORDERS[order]()(owner_orders.read(folder.root))
    owner_orders.write(folder.root, orders)
    return f"{folder.name()}: {render_orders(orders, datetime.now().astimezone())}"
