"""What is in force after `nomoat pause`, `resume` and `finish`, as text."""

from __future__ import annotations

from datetime import datetime

from nomoat.client.machine.readings import Orders


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
