"""Orders to a running client: pause, resume, finish, in one small file beside its state.

The file says what is wanted, not what happened, so orders survive a reboot, can be given while no
client runs, and can be repeated: pausing twice is pausing. The client looks at it, and asks the
policy, between micro-steps. docs/adr/0004-pausing.md says how a step stops and goes on.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import Final

from nomoat.aggregation.errors import UsageError
from nomoat.client.machine.readings import Orders
from nomoat.storage.atomic import replacing

FILE_NAME: Final = "orders.json"
MAX_PAUSE_S: Final = 366 * 86400
_UNITS: Final = MappingProxyType({"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400})
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")


def pause(orders: Orders, now_s: float, for_s: float | None, zone: tzinfo) -> Orders:
    """Pause for `for_s` seconds, or until resume. A new pause replaces the old one."""
    if for_s is None:
        return replace(orders, paused=True, paused_until=None)
    if not (math.isfinite(for_s) and 0 < for_s <= MAX_PAUSE_S):
        raise UsageError(
            "a pause lasts between a second and a year; leave --for out to stay paused"
        )
    return replace(orders, paused=True, paused_until=datetime.fromtimestamp(now_s + for_s, zone))


def resume(orders: Orders) -> Orders:
    """Take back both pause and finish: to resume is to want training."""
    return replace(orders, paused=False, paused_until=None, finish=False)


def finish(orders: Orders) -> Orders:
    """Stop after the round at hand. A pause stays: the round then waits for its end."""
    return replace(orders, finish=True)


def span_s(text: str) -> float:
    """Seconds in "90s", "2h", "1h30m"; UsageError for anything else."""
    parts = _SPAN.findall(text.strip().lower())
    if not parts or _SPAN.sub("", text.strip().lower()).strip():
        raise UsageError(f"{text!r} is no length of time; write 30m, 2h or 1d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def encode(orders: Orders) -> bytes:
    """Orders as the file's bytes."""
    until = orders.paused_until.timestamp() if orders.paused_until else None
    values = {"paused": orders.paused, "paused_until": until, "finish": orders.finish}
    return json.dumps(values, allow_nan=False).encode() + b"\n"


def decode(data: bytes, zone: tzinfo = UTC) -> Orders:
    """Orders from the file's bytes. What cannot be read is a pause: silence is not consent."""
    try:
        values = json.loads(data)
        until, paused, finishing = values["paused_until"], values["paused"], values["finish"]
        if type(paused) is not bool or type(finishing) is not bool:
            raise TypeError("an order is true or false")
        at = None if until is None else datetime.fromtimestamp(until, zone)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return Orders(paused=True)
    return Orders(paused, at, finishing)


def read(folder: Path, zone: tzinfo = UTC) -> Orders:
    """The orders in force; none were given if there is no file."""
    try:
        return decode((folder / FILE_NAME).read_bytes(), zone)
    except FileNotFoundError:
        return Orders()
    except OSError:
        return Orders(paused=True)


def write(folder: Path, orders: Orders) -> None:
    """Put orders in force, whole or not at all; NomoatError if the file cannot be written."""
    with replacing(folder / FILE_NAME) as file:
        file.write(encode(orders))
