"""`nomoat status`, `pause`, `resume`, `finish` as text."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from nomoat.client.facts import Orders
from nomoat.client.policy import Decision


def render_status(decision: Decision, now: datetime) -> str:
    """One line: state, reason, since when, e.g. "waiting: on battery, since 14:02"."""
    return f"{decision.action.value}: {decision.reason}, since {_since(decision.since, now)}"


def render_blocks(decision: Decision, now: datetime) -> str:
    """Every reason to wait, one a line; those whose cause has gone say that they are settling."""
    lines = []
    for block in decision.blocks:
        settling = " (gone, settling)" if block.gone_since else ""
        lines.append(f"  {block.text}, since {_since(block.since, now)}{settling}")
    return "\n".join(lines)


def status_json(decision: Decision, orders: Orders) -> dict[str, Any]:
    """The same for `--json`; times in ISO 8601 with their offset."""
    blocks = [{k: _plain(v) for k, v in asdict(block).items()} for block in decision.blocks]
    return {
        "state": decision.action.value,
        "reason": decision.reason,
        "since": decision.since.isoformat(),
        "blocks": blocks,
        "orders": {k: _plain(v) for k, v in asdict(orders).items()},
    }


def render_orders(orders: Orders, now: datetime) -> str:
    """What is in force after pause, resume or finish."""
    said = []
    if orders.paused and orders.paused_until is None:
        said.append("paused until nomoat resume; memory is given back within seconds")
    elif orders.paused and orders.paused_until and orders.paused_until > now:
        said.append(f"paused until {_since(orders.paused_until, now)}")
    if orders.finish:
        said.append("stopping after the round at hand")
    return "; ".join(said) or "training whenever the limits allow"


def _since(at: datetime, now: datetime) -> str:
    local = at.astimezone(now.tzinfo)
    return f"{local:%H:%M}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M}"


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
